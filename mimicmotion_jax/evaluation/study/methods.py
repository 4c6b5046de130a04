"""Videos of the methods that a study compares: found by name, opened and checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from mimicmotion_jax.evaluation.sequences import find_videos
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import VideoReader, open_video

_SINGLE = "the video"
_SAME_SHAPE = 0.03  # largest relative difference of aspect ratios that are taken for the same
_MAX_LISTED = 5


def open_methods(
    methods: Mapping[str, Path], fps: float | None, *, square: bool = False, progress: bool = True
) -> dict[str, dict[str, VideoReader]]:
    """Open the videos of each method, by method and by name.

    Args:
        methods: by name, a folder with one video or one folder of frames per clip, or a single video.
        fps: frame rate of folders of frames.
        square: only central squares are shown, so that shapes may differ.
        progress: show a progress bar.

    Raises:
        InputError: fewer than two methods, the same folder twice, names that differ, a video that cannot be read, or
            videos of a clip with different shapes.
    """
    if len(methods) < 2:
        raise InputError("a study compares methods; give --videos two or more folders, the first with your own videos.")
    places: dict[Path, str] = {}
    for name, path in methods.items():
        if (other := places.setdefault(path.resolve(), name)) != name:
            raise InputError(f"{other} and {name} are the same videos ({path}); give each method its own.")
    found = {name: _find(path) for name, path in methods.items()}
    _check_names(found)
    opened: dict[str, dict[str, VideoReader]] = {name: {} for name in found}
    every = [(method, name, path) for method, videos in found.items() for name, path in videos.items()]
    for method, name, path in tqdm(every, "opening", unit="video", disable=not progress):
        reader = opened[method][name] = open_video(path, fps)
        if reader.num_frames < 2:
            raise InputError(f"{path} is a single picture; give videos.")
    if not square:
        _check_shapes(opened)
    return opened


def _find(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {_SINGLE: path}
    if videos := find_videos(path):
        return videos
    raise InputError(f"the folder {path} holds no videos; put NAME.mp4 or a folder NAME of pictures per clip.")


def _check_names(found: Mapping[str, Mapping[str, Path]]) -> None:
    method, *baselines = found
    for baseline in baselines:
        for one, other in ((method, baseline), (baseline, method)):
            if missing := [name for name in found[one] if name not in found[other]]:
                raise InputError(
                    f"{other} has no video for {_listed(missing)} of {one}; each method needs the same clips, with the "
                    "same file names."
                )


def _check_shapes(opened: Mapping[str, Mapping[str, VideoReader]]) -> None:
    method, *baselines = opened
    for name, ours in opened[method].items():
        for baseline in baselines:
            theirs = opened[baseline][name]
            if abs(ours.width * theirs.height / (ours.height * theirs.width) - 1) > _SAME_SHAPE:
                raise InputError(
                    f"{name} is {ours.width}x{ours.height} for {method} and {theirs.width}x{theirs.height} for "
                    f"{baseline}, and the shape would give the method away; say --square to show the central squares, "
                    "as the paper does."
                )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
