"""Test sequences on disk, and the videos that are compared with them.

DIR/NAME/00000.png …   or DIR/NAME/images/…, or DIR/NAME.mp4: the true frames, the first of which is the reference
DIR/NAME.npz           keypoints (`pose.files`), one pose per frame; detected where there are none
DIR/NAME.foreground.npz  optional: `background` UInt8[H, W, 3] (and `foreground`, which is not read)
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.evaluation.protocols import Protocol
from mimicmotion_jax.evaluation.records import sha256_files
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import VIDEO_SUFFIXES, VideoReader, open_video

_IMAGES = "images"  # the subfolder in which the TikTok dataset keeps a sequence's frames, beside its masks


@dataclass(frozen=True)
class TestSequence:
    """The files of one sequence, and what a look at them tells."""

    __test__ = False  # no test class, whatever pytest makes of the name

    name: str
    reader: VideoReader
    poses: Path | None
    foreground: Path | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the true frames, pixels."""
        return self.reader.height, self.reader.width

    def load_poses(self) -> Keypoints | None:
        """The keypoints that came with the sequence, of everybody, one pose per frame; None where none came.

        Raises:
            InputError: unreadable keypoints, or not one pose per frame.
        """
        if self.poses is None:
            return None
        found = load_keypoints(self.poses)
        if found.num_frames != self.reader.num_frames:
            raise InputError(
                f"{self.poses} holds {found.num_frames} poses and {self.reader.path} {self.reader.num_frames} frames; "
                "make them fit, or remove the file to have poses detected."
            )
        return found

    def load_background(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """What is seen where the person is not; None where that is not known.

        Raises:
            InputError: a damaged file, or a background of another size than the frames.
        """
        if self.foreground is None:
            return None
        try:
            with np.load(self.foreground, allow_pickle=False) as file:
                background = file["background"]
        except (OSError, ValueError, EOFError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
            raise InputError(
                f"{self.foreground} is no readable .npz with an array 'background'; write it again."
            ) from None
        if background.shape != (*self.size, 3) or background.dtype != np.uint8:
            raise InputError(
                f"'background' in {self.foreground} should be {(*self.size, 3)} bytes like the frames of "
                f"{self.reader.path}, not {background.shape} of {background.dtype}."
            )
        return background


def find_sequences(folder: Path, protocol: Protocol) -> list[TestSequence]:
    """The protocol's sequences in `folder`, in its order (or that of their names).

    Raises:
        InputError: no such folder, nothing in it, sequences that are missing, unreadable or of a single frame.
    """
    found = find_videos(folder)
    if not found:
        raise InputError(f"the folder {folder} holds no sequences; put one folder of frames or one video per sequence.")
    if protocol.sequences is None:
        names = list(found)
    else:
        matches = {wanted: _named(found, wanted) for wanted in protocol.sequences}
        if missing := [wanted for wanted, name in matches.items() if name is None]:
            raise InputError(
                f"{folder} lacks {', '.join(missing)} of the sequences of protocol '{protocol.name}' "
                f"({protocol.sequences[0]} to {protocol.sequences[-1]}); add them, for example as "
                f"{folder / missing[0].zfill(5) / _IMAGES}, or choose another protocol."
            )
        names = [name for name in matches.values() if name is not None]
    sequences = []
    for name in names:
        poses, foreground = folder / f"{name}.npz", folder / f"{name}.foreground.npz"
        reader = open_video(found[name], protocol.image_fps)
        if reader.num_frames < 2:
            raise InputError(f"{found[name]} has a single frame, which is the reference; a sequence needs two or more.")
        sequences.append(
            TestSequence(name, reader, poses if poses.is_file() else None, foreground if foreground.is_file() else None)
        )
    return sequences


def find_counterparts(folder: Path, sequences: list[TestSequence], fps: float) -> list[VideoReader]:
    """The videos in `folder` that belong to the sequences, by name.

    Raises:
        InputError: no such folder, nothing in it, a sequence without its video, an unreadable video.
    """
    found = find_videos(folder)
    if not found:
        raise InputError(
            f"the folder {folder} holds no videos; put NAME.mp4 or a folder NAME of pictures per sequence."
        )
    matches = {sequence.name: _named(found, sequence.name) for sequence in sequences}
    if missing := [name for name, match in matches.items() if match is None]:
        raise InputError(
            f"{folder} holds no video for {', '.join(missing)}; add {missing[0]}.mp4 or a folder {missing[0]} of "
            "pictures, and so on, because a mean over fewer sequences is another number."
        )
    return [open_video(found[name], fps) for name in matches.values() if name is not None]


def find_videos(folder: Path) -> dict[str, Path]:
    """Videos and folders in `folder` by name (without suffix), in order; hidden ones and other files are left out.

    Raises:
        InputError: no such folder, two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; check the path.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise InputError(f"{found[name]} and {path} are of one name; keep the one that is meant.")
        found[name] = path / _IMAGES if (path / _IMAGES).is_dir() else path
    return found


def sha256_video(reader: VideoReader) -> str:
    """Of a video's file, or of its pictures and their names."""
    return sha256_files((path.name, path) for path in list(reader.pictures) or [reader.path])


def _named(found: dict[str, Path], wanted: str) -> str | None:
    """The name among `found` that is `wanted`; between numbers leading zeros make no difference."""
    if wanted in found:
        return wanted
    if wanted.isdecimal():
        return next((name for name in found if name.isdecimal() and int(name) == int(wanted)), None)
    return None
