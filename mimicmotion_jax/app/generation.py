"""One generation in a thread of its own: its progress, previews of its steps, a stop, and the files it leaves."""

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mimicmotion_jax.app.timing import Timing
from mimicmotion_jax.config import build_config
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import OutputOptions, PipelineOptions, merge_defaults
from mimicmotion_jax.inference.output import write_videos
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.image import resize
from mimicmotion_jax.video.provenance import provenance, read_provenance

_PREVIEWS = 6  # at most, of one generation
_MAX_PREVIEW_SECONDS = 3.0  # a preview that takes longer is the last one
_FRAMES_BETWEEN = 10  # two reports of the detection
_MIN_SIDE = 480  # pixels: a smaller comparison is enlarged
LABELS = ("reference", "motion", "result")


class StoppedError(Exception):
    """The user stopped the generation."""


@dataclasses.dataclass(frozen=True)
class Step:
    """Progress of a generation.

    Attributes:
        stage: what is being done, for example "denoising".
        done: parts of the stage that are done.
        total: parts of the stage.
        seconds_left: of the stage; None if it is not known.
        preview: a frame as the model sees it now; None where there is no new one.
    """

    stage: str
    done: int = 0
    total: int = 1
    seconds_left: float | None = None
    preview: UInt8[np.ndarray, "h w 3"] | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished video.

    Attributes:
        video: the file, with sound.
        comparison: reference, skeleton and result side by side.
        poster: a frame of the result as PNG, for lists.
        prepared: inputs.
        seconds: time that it took.
        provenance: what the file says about itself, read back.
    """

    video: Path
    comparison: Path
    poster: Path
    prepared: Prepared
    seconds: float
    provenance: Mapping[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings as the file vouches for them, and the options behind them."""
        return {
            **self.provenance,
            "seconds": round(self.seconds, 1),
            "frames": self.prepared.shape[0] - 1,
            "size": f"{self.prepared.shape[2]}x{self.prepared.shape[1]}",
            "options": dict(self.prepared.settings),
            "report": str(self.prepared.report).splitlines(),
        }


def generate(
    pipeline: MimicMotionPipeline,
    inputs: Mapping[str, Any],
    folder: Path,
    stop: threading.Event,
    timing: Timing,
    devices: contextlib.AbstractContextManager[Any] | None = None,
) -> Iterator[Step | Result]:
    """Generate a video; yield its progress, and the result last.

    Args:
        pipeline: the networks.
        inputs: arguments of `pipeline(...)`.
        folder: new folder for the files.
        stop: ends the generation at its next step, once it is set.
        timing: takes note of how long it took.
        devices: held until the devices are free again, which may be after the caller has gone away.

    Raises:
        StoppedError: `stop` was set.
        InputError: whatever the pipeline says.
    """
    messages: queue.SimpleQueue[Step | Result | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            with devices or contextlib.nullcontext():
                messages.put(_Work(pipeline, inputs, folder, stop, timing, messages.put).run())
        except BaseException as error:  # handed to the caller
            messages.put(error)

    threading.Thread(target=work, name="generation", daemon=True).start()
    try:
        while True:
            message = messages.get()
            if isinstance(message, BaseException):
                raise message
            yield message
            if isinstance(message, Result):
                return
    finally:
        stop.set()  # the page was closed, or all is done


class _Work:
    """Work of the thread."""

    def __init__(self, pipeline: MimicMotionPipeline, inputs: Any, folder: Path, stop: Any, timing: Timing, tell: Any):
        self._pipeline, self._inputs, self._folder, self._stop = pipeline, inputs, folder, stop
        self._timing, self._tell = timing, tell
        self._options = PipelineOptions()  # until the inputs are prepared
        self._before: np.ndarray | None = None
        self._times: list[float] = []
        self._can_preview, self._is_compiled = True, False

    def run(self) -> Result:
        begin = time.monotonic()
        self._check()
        self._tell(Step("looking at the picture and the motion"))
        self._survey()
        stream = self._pipeline.stream(**self._inputs, callback_on_step_end=self._on_step_end, progress=False)
        prepared = stream.prepared
        self._options = prepared.options
        self._check()
        total, picked = len(stream), {}

        def chunks() -> Iterator[Float[np.ndarray, "1 1 height width 3"]]:
            for number, frame in enumerate(stream, 1):
                self._check()
                if number == 1 + total // 2:
                    picked["poster"] = np.round(frame * 255).astype(np.uint8)
                self._tell(Step("decoding", number, total))
                yield frame[None, None]

        self._folder.mkdir(parents=True)
        video = self._folder / f"{_stem(self._inputs['image'])}-seed{prepared.options.seed}.mp4"
        self._tell(Step("preparing the devices"))
        write_videos([prepared], [video], chunks(), OutputOptions())
        self._record_time(prepared, total)
        self._tell(Step("putting them side by side"))
        comparison = self._folder / f"{video.stem}-compared.mp4"
        _write_comparison(prepared, video, comparison)
        poster = self._folder / f"{video.stem}.png"
        _save_png(picked["poster"], poster)
        return Result(video, comparison, poster, prepared, time.monotonic() - begin, read_provenance(video))

    def _survey(self) -> None:
        """Detect poses, which the pipeline then finds in its cache: so that it can be watched and stopped."""
        inputs = dict(self._inputs)
        files = inputs.pop("image"), inputs.pop("motion")
        image_pose = inputs.pop("image_pose", None)

        def watch(done: int, total: int) -> None:
            self._check()
            if done % _FRAMES_BETWEEN == 0 or done == total:
                self._tell(Step("detecting poses", done, total))

        options = build_config(PipelineOptions, merge_defaults(self._pipeline.defaults, inputs), "the form")
        self._pipeline.preparer.survey(*files, options, image_pose, progress=False, watch=watch)

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _on_step_end(self, pipeline: Any, step: int, timestep: float, tensors: Mapping[str, jax.Array]) -> None:
        del timestep
        self._check()
        self._times.append(time.monotonic())
        total, chunk = self._options.num_steps, self._options.decode_chunk_size
        middle = max(0, tensors["latents"].shape[1] // 2 - chunk // 2)
        # A copy: the next step reuses the memory.
        latents = np.array(tensors["latents"][:, middle : middle + chunk], np.float32)
        preview = None
        every = max(1, total // _PREVIEWS)
        if self._can_preview and self._before is not None and (step % every == 0 or step == total - 1):
            preview = self._preview(self._before, latents, step)
        self._before = latents
        left = None
        if len(self._times) > 1:
            left = (total - step - 1) * (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        self._tell(Step("denoising", step + 1, total, left, preview))

    def _preview(self, x: np.ndarray, y: np.ndarray, step: int) -> np.ndarray:
        """Decode the frame in the middle of latents [B, n, h, w, c] that the last Euler step headed for.

        The step from x at s to y at t is y = x + (t - s) (x - D) / s, so it headed for D = x - s (y - x) / (t - s).
        """
        begin = time.monotonic()
        s, t = (float(sigma) for sigma in self._options.sigmas[step : step + 2])
        frames = np.concatenate(list(self._pipeline.decode(x - s * (y - x) / (t - s), self._options)), axis=1)
        is_compiled, self._is_compiled = self._is_compiled, True
        self._can_preview = not is_compiled or time.monotonic() - begin < _MAX_PREVIEW_SECONDS
        return np.round(frames[0, frames.shape[1] // 2] * 255).astype(np.uint8)

    def _record_time(self, prepared: Prepared, num_frames: int) -> None:
        if len(self._times) < 2:
            return
        step_seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        frame_seconds = (time.monotonic() - self._times[-1]) / num_frames
        windows = prepared.options.plan(prepared.shape[0], self._pipeline.config.window_size).num_windows
        self._timing.record(prepared, windows, step_seconds, frame_seconds)


def _stem(image: Any) -> str:
    stem = "".join(letter if letter.isalnum() else "-" for letter in Path(image).stem)[:40]
    return stem.strip("-") or "video"


def _write_comparison(prepared: Prepared, video: Path, comparison: Path) -> None:
    """Write reference, skeleton and result side by side; a small result is enlarged."""
    reader = open_video(video)
    scale = max(1, -(-_MIN_SIDE // reader.height))
    height, width = prepared.shape[1] * scale, prepared.shape[2] * scale
    panel = np.zeros((1, height, width, 3), np.uint8)
    rows, columns = side_by_side([panel] * 3, height, labels=LABELS).shape[1:3]
    metadata = provenance(prepared.options.seed, prepared.settings)
    with open_writer(comparison, prepared.fps, columns, rows, metadata=metadata, progress=False) as writer:
        for number, frame in enumerate(reader.frames(), 1):
            shown = [prepared.image, prepared.poses[number : number + 1][0], frame[: prepared.shape[1]]]
            writer.write(side_by_side([resize(one, height, width) for one in shown], height, labels=LABELS))


def _save_png(pixels: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    Image.fromarray(pixels).save(path)
