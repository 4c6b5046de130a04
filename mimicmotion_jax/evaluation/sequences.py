"""Test sequences on disk, and the videos that are compared with them.

DIR/NAME/00000.png …   or DIR/NAME/images/…, or DIR/NAME.mp4: the true frames; the first one is the reference
DIR/NAME.npz           keypoints (`pose.files`), one pose per frame; detected if missing
DIR/NAME.foreground.npz  optional: `background` UInt8[H, W, 3] (and `foreground`, which is not read)
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.protocols import Protocol
from mimicmotion_jax.evaluation.records import sha256_files
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import VIDEO_SUFFIXES, VideoReader, open_video

_IMAGES = "images"  # subfolder with a sequence's frames in the TikTok dataset, beside its masks


@dataclass(frozen=True)
class TestSequence:
    """Files of one test sequence."""

    __test__ = False  # not a test class, despite its name

    name: str
    reader: VideoReader
    """Reader of the true frames."""
    sha256: str
    """Hash of the true frames' files."""
    poses: Path | None
    foreground: Path | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the true frames, in pixels."""
        return self.reader.height, self.reader.width

    def load_poses(self) -> Keypoints | None:
        """Load the sequence's own keypoints, of all people, one pose per frame; None if it has none.

        Raises:
            InputError: the keypoints are unreadable, or not one pose per frame.
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
        """Load the picture without the person; None if it is not known.

        Raises:
            InputError: the file is damaged, or its background has another size than the frames.
        """
        if self.foreground is None:
            return None
        try:
            with np.load(self.foreground, allow_pickle=False) as file:
                background = file["background"]
        except (OSError, ValueError, EOFError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
            raise InputError(
                f"{self.foreground} is not a readable .npz with an array 'background'; write it again."
            ) from None
        if background.shape != (*self.size, 3) or background.dtype != np.uint8:
            raise InputError(
                f"'background' in {self.foreground} must be {(*self.size, 3)} bytes like the frames of "
                f"{self.reader.path}, not {background.shape} of {background.dtype}."
            )
        return background


def find_sequences(folder: Path, protocol: Protocol, failures: Failures, progress: bool = True) -> list[TestSequence]:
    """Open the protocol's sequences in `folder`, in the protocol's order (or by name).

    Args:
        folder: one folder of frames or one video per sequence.
        protocol: names the sequences.
        failures: gets the sequences that are unreadable or have a single frame.
        progress: show a progress bar.

    Raises:
        InputError: the folder is missing or empty, lacks a sequence of the protocol, or no sequence is readable.
    """
    found = find_videos(folder)
    if not found:
        raise InputError(f"the folder {folder} holds no sequences; put one folder of frames or one video per sequence.")
    names = list(found)
    if protocol.sequences is not None:
        matches = {wanted: _match(found, wanted) for wanted in protocol.sequences}
        if missing := [wanted for wanted, name in matches.items() if name is None]:
            raise InputError(
                f"{folder} lacks {', '.join(missing)} of the sequences of protocol '{protocol.name}' "
                f"({protocol.sequences[0]} to {protocol.sequences[-1]}); add them, for example as "
                f"{folder / missing[0].zfill(5) / _IMAGES}, or choose another protocol."
            )
        names = [name for name in matches.values() if name is not None]
    sequences = []
    for name in tqdm(names, "opening the sequences", unit="sequence", disable=not progress):
        with failures.leave_out(name):
            sequences.append(_open_sequence(folder, name, found[name], protocol.image_fps))
    return failures.remaining(sequences)


def _open_sequence(folder: Path, name: str, path: Path, fps: float) -> TestSequence:
    reader = open_video(path, fps)
    if reader.num_frames < 2:
        raise InputError(f"{path} has a single frame, which is the reference; a sequence needs two or more.")
    # A dangling link counts as a file: it is an error, not a sequence without keypoints.
    poses, foreground = (
        file if file.is_file() or file.is_symlink() else None
        for file in (folder / f"{name}.npz", folder / f"{name}.foreground.npz")
    )
    return TestSequence(name, reader, sha256_video(reader), poses, foreground)


def find_counterparts(
    folder: Path, sequences: Sequence[TestSequence], fps: float, failures: Failures
) -> dict[str, VideoReader]:
    """Open the videos in `folder` that belong to the sequences, by the sequence's name.

    Raises:
        InputError: the folder is missing or empty, or lacks the video of a sequence.
    """
    found = find_videos(folder)
    if not found:
        raise InputError(
            f"the folder {folder} holds no videos; put NAME.mp4 or a folder NAME of pictures per sequence."
        )
    matches = {sequence.name: _match(found, sequence.name) for sequence in sequences}
    if missing := [name for name, match in matches.items() if match is None]:
        raise InputError(
            f"{folder} holds no video for {', '.join(missing)}; add {missing[0]}.mp4 or a folder {missing[0]} of "
            "pictures, and so on, because a mean over fewer sequences is another number."
        )
    readers = {}
    for name, match in matches.items():
        if match is not None:
            with failures.leave_out(name):
                readers[name] = open_video(found[match], fps)
    return readers


def find_videos(folder: Path) -> dict[str, Path]:
    """List videos and folders in `folder` by name (without suffix), sorted; hidden and other files are skipped.

    Links count even if they are dangling: opening them says what is wrong.

    Raises:
        InputError: the folder is missing, or two entries have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; check the path.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir() or (path.is_symlink() and not path.exists() and not path.suffix)
        if path.name.startswith(".") or not (is_folder or path.suffix.lower() in VIDEO_SUFFIXES):
            continue
        name = path.name if is_folder else path.stem
        if name in found:
            raise InputError(f"{found[name]} and {path} have the same name; keep one of them.")
        found[name] = path / _IMAGES if (path / _IMAGES).is_dir() else path
    return found


def sha256_video(reader: VideoReader) -> str:
    """Hash a video's file, or its pictures and their names."""
    return sha256_files((path.name, path) for path in list(reader.pictures) or [reader.path])


def _match(found: dict[str, Path], wanted: str) -> str | None:
    """Return the name among `found` that equals `wanted`; leading zeros of numbers are ignored."""
    if wanted in found:
        return wanted
    if wanted.isdecimal():
        return next((name for name in found if name.isdecimal() and int(name) == int(wanted)), None)
    return None
