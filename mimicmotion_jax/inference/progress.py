"""Saved progress of a generation, so that the same call goes on where a killed one stopped, to the same bits.

    FOLDER/mimicmotion-progress-latents.npz         latents after a step, and a description of what they are made from
    FOLDER/mimicmotion-progress-frames-00003.npz    finished frames of a decoded chunk, 8 bits per channel

Both are ZIP files, whose checksums tell damage.
"""

import contextlib
import hashlib
import io
import json
import logging
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import SAVE_SECONDS
from mimicmotion_jax.pose.keypoints import ARRAYS
from mimicmotion_jax.runtime.atomic_files import hidden_path, write_file
from mimicmotion_jax.runtime.out_of_memory import fetch

logger = logging.getLogger(__name__)

_PREFIX = "mimicmotion-progress-"
_LATENTS = f"{_PREFIX}latents.npz"
_FRAMES = f"{_PREFIX}frames-{{:05d}}.npz"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class Saved(NamedTuple):
    """State that an earlier run saved."""

    step: int
    """Number of steps that are done."""
    latents: Float[np.ndarray, "b f h w c"]


class Progress:
    """Progress of the videos of one batch, each in a folder of its own.

    Nothing is saved before `seconds` have passed, so a short video leaves no trace. A full disk ends the saving,
    not the run.

    Args:
        folders: for each video, local or gs://; made when something is saved.
        descriptions: everything that decides each video's frames (`describe`), as JSON values.
        seconds: least time between two saves.
        keep_frames: save finished frames too. They come back as multiples of 1/255, as files hold them.
    """

    def __init__(
        self,
        folders: Sequence[epath.PathLike],
        descriptions: Sequence[Mapping[str, Any]],
        seconds: float = SAVE_SECONDS,
        keep_frames: bool = True,
    ):
        self._folders = [epath.Path(folder) for folder in folders]
        self._descriptions = [json.loads(json.dumps(description, default=str)) for description in descriptions]
        self._seconds, self._keep_frames = seconds, keep_frames
        self._began = self._last_save = time.monotonic()
        self._is_ours = False  # what lies in the folders is of this run, or of the one that it continues
        self._frames_follow = False  # the latents of the last step are saved, and frames can be
        self._failed = False

    def load(self, num_steps: int) -> Saved | None:
        """Return the latents that an earlier run of the same videos saved; None, with the reason logged, otherwise."""
        found = [_read(*pair) for pair in zip(self._folders, self._descriptions, strict=True)]
        saved = [state for state in found if state is not None]
        if len(saved) < len(found) or len({state.step for state in saved}) != 1:
            return None
        step = saved[0].step
        self._is_ours, self._frames_follow = True, step == num_steps
        logger.info("going on from step %d of %d, which an earlier run saved", step, num_steps)
        return Saved(step, np.stack([state.latents for state in saved]))

    def save(self, step: int, num_steps: int, latents: jax.Array) -> None:
        """Save the latents [B, F, h, w, c] after a step if it is time; after the last one, if the video is long."""
        now = time.monotonic()
        since = self._began if step == num_steps else self._last_save
        if self._failed or now - since < self._seconds:
            return
        values = np.asarray(fetch(latents))
        if not self._is_ours:
            self.remove()
        parts = zip(self._folders, self._descriptions, values, strict=True)
        self._write(
            {
                folder / _LATENTS: {"description": json.dumps(description), "step": step, "latents": video}
                for folder, description, video in parts
            }
        )
        self._is_ours, self._frames_follow = True, step == num_steps and not self._failed
        self._last_save = time.monotonic()

    def load_frames(self, chunk: int) -> Float[np.ndarray, "b n height width 3"] | None:
        """Return the finished frames of a decoded chunk; None if they were not saved."""
        if not (self._frames_follow and self._keep_frames):
            return None
        try:
            frames = [_load(folder / _FRAMES.format(chunk))["frames"] for folder in self._folders]
        except _UNREADABLE:
            return None
        return np.stack(frames).astype(np.float32) / 255

    def save_frames(self, chunk: int, frames: Float[np.ndarray, "b n height width 3"]) -> None:
        """Save the finished frames of a decoded chunk, where the latents were worth saving."""
        if self._frames_follow and self._keep_frames and not self._failed:
            pixels = np.round(frames * 255).astype(np.uint8)
            places = [folder / _FRAMES.format(chunk) for folder in self._folders]
            self._write({place: {"frames": video} for place, video in zip(places, pixels, strict=True)})

    def remove(self) -> None:
        """Remove what was saved, when the videos are complete."""
        for folder in self._folders:
            remove_progress(folder)

    def _write(self, files: Mapping[epath.Path, Mapping[str, Any]]) -> None:
        try:
            for path, arrays in files.items():
                content = io.BytesIO()
                np.savez(content, **arrays)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, content.getvalue())
        except OSError as error:
            self._failed = True
            logger.warning("the progress is not saved any more (%s); the run goes on", error.strerror or error)


def describe(item: Prepared, **common: Any) -> dict[str, Any]:
    """Describe everything that decides the frames of a video: options, the content of its inputs, and what is `common`.

    Two videos with equal descriptions are equal.
    """
    if item.keypoints is None:
        motion = [item.poses[start : start + 16] for start in range(0, item.shape[0], 16)]
    else:
        people = filter(None, (item.keypoints, item.reference))
        motion = [getattr(keypoints, name) for keypoints in people for name in ARRAYS]
    inputs = {"image": array_sha256(item.image), "motion": array_sha256(*motion), "shape": list(item.shape)}
    return {**common, **item.settings, **inputs}


def progress_folder(output: epath.PathLike) -> epath.Path:
    """Hidden folder beside an output where the progress of its video is saved.

    Raises:
        InputError: unknown format.
    """
    from mimicmotion_jax.video.encode import output_target  # needs PyAV, which results in memory do without

    return epath.Path(hidden_path(output_target(output), "progress"))


def array_sha256(*arrays: np.ndarray) -> str:
    """SHA-256 of the content of arrays, as a hex string."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def remove_progress(folder: epath.PathLike) -> None:
    """Remove saved progress from a folder, and the folder if nothing else is in it."""
    folder = epath.Path(folder)
    if not folder.exists():
        return
    for path in list(folder.glob(f"*{_PREFIX}*")):  # unfinished files too
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _read(folder: epath.Path, description: Mapping[str, Any]) -> Saved | None:
    """Return the progress saved in a folder if it is of this video and undamaged."""
    if not (folder / _LATENTS).exists():
        return None
    try:
        arrays = _load(folder / _LATENTS)
        saved: dict[str, Any] = json.loads(str(arrays["description"]))
        state = Saved(int(arrays["step"]), arrays["latents"])
    except _UNREADABLE as error:
        logger.warning("the progress saved in %s is damaged (%s): starting from the first step", folder, error)
        return None
    if changed := [key for key in {**description, **saved} if description.get(key, ...) != saved.get(key, ...)]:
        logger.warning("the progress saved in %s is of another %s: starting again", folder, " and ".join(changed[:5]))
        return None
    return state


def _load(path: epath.Path) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return dict(arrays)
