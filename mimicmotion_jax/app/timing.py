"""Durations measured on this device, to say beforehand how long a video takes."""

import contextlib
import json
from pathlib import Path

from mimicmotion_jax.app.preflight import Preflight
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.runtime.atomic_files import write_file


class Timing:
    """Seconds per step of a window and per decoded frame, by size and options.

    Args:
        file: JSON that keeps them for the next run; None keeps them in memory.
        device: description of device and model, which the measurements hold for.

    Attributes:
        version: number of measurements in this run.
    """

    def __init__(self, file: Path | None = None, device: str = ""):
        self.version = 0
        self._file, self._device = file, device
        self._rates: dict[str, list[float]] = {}
        if file is not None and file.is_file():
            with contextlib.suppress(ValueError):  # damaged: measured again
                self._rates = json.loads(file.read_text())

    def record(self, prepared: Prepared, num_windows: int, step_seconds: float, frame_seconds: float) -> None:
        """Note the time of a step, and that of decoding and writing a frame."""
        self.version += 1
        options = prepared.options
        call_seconds = step_seconds * options.num_steps / options.unet_calls / num_windows
        self._rates[self._key(options, prepared.shape[1:])] = [call_seconds, frame_seconds]
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._file, json.dumps(self._rates, indent=1).encode())

    def expect(self, preflight: Preflight) -> float | None:
        """Seconds that a video will take; None before one of its size was made."""
        rates = self._rates.get(self._key(preflight.options, preflight.survey.size))
        if rates is None:
            return None
        per_call, per_frame = rates
        calls = preflight.num_windows * preflight.options.unet_calls
        return per_call * calls + per_frame * preflight.survey.num_frames

    def _key(self, options: PipelineOptions, size: tuple[int, ...]) -> str:
        return f"{self._device} {size} {options.window_size} {options.group_size} {options.memory} {options.guided}"
