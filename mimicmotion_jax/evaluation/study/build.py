"""Making of a study: clips with names that tell nothing, the page that shows them in pairs, and the key."""

import logging
import math
import random
import secrets
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from mimicmotion_jax.evaluation.records import write_text
from mimicmotion_jax.evaluation.study.files import KEY, PAGE, Clip, Study
from mimicmotion_jax.evaluation.study.methods import open_methods
from mimicmotion_jax.evaluation.study.orders import draw_orders
from mimicmotion_jax.pages.render import GENERATOR, render
from mimicmotion_jax.runtime.atomic_files import working_folder
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import VideoReader
from mimicmotion_jax.video.encode import open_writer

logger = logging.getLogger(__name__)

QUESTION = (
    "Choose the video of higher quality. Look at how sharp and clean the pictures are, whether anything flickers, and "
    "whether the person and the clothing stay the same over time."
)
"""Text above the videos: the criteria of the paper's study (figure 10)."""

NUM_PARTICIPANTS = 100
"""Orders that are drawn unless told otherwise."""

_CRF = 12  # cannot be told from the original
_SECONDS_TO_ANSWER = 3


def build_study(
    methods: Mapping[str, Path],
    output: Path,
    *,
    question: str = QUESTION,
    num_pairs: int | None = None,
    num_participants: int = NUM_PARTICIPANTS,
    square: bool = False,
    fps: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Study:
    """Write the folder of a study; see `files` for what is in it.

    All clips are encoded anew, in the same way, without sound or metadata and under random names. The videos of a clip
    are cut to the shortest.

    Args:
        methods: folder of videos, or single video, by the method's name; the first is compared with each other one.
        output: new or empty folder.
        question: text above the videos.
        num_pairs: pairs of each baseline for a participant, drawn at random; None shows all.
        num_participants: orders to draw; further participants see them again.
        square: show the central square of each video.
        fps: frame rate of folders of frames; None assumes 24.
        seed: of pairs, order and sides.
        progress: show progress bars.

    Raises:
        InputError: an output that exists, videos that cannot be compared (see `methods.open_methods`), or a number out
            of range.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output} exists already, and a study is never overwritten; choose another output.")
    if num_participants < 1:
        raise InputError(f"--participants must be at least 1, not {num_participants}.")
    opened = open_methods(methods, fps, square=square, progress=progress)
    method, *baselines = opened
    names = list(opened[method])
    if num_pairs is not None and not 1 <= num_pairs <= len(names):
        raise InputError(f"--pairs must be 1 to {len(names)}, the number of clips, not {num_pairs}.")
    origins = [Clip(method=one, name=name) for one in opened for name in names]
    clips = dict(zip(_random_names(len(origins)), origins, strict=True))
    named = {(origin.method, origin.name): clip for clip, origin in clips.items()}
    orders = []
    for drawn in draw_orders(len(baselines), len(names), num_pairs or len(names), num_participants, seed):
        pairs = [
            (named[method, names[shown.clip]], named[baselines[shown.baseline], names[shown.clip]], shown.method_left)
            for shown in drawn
        ]
        orders.append([(ours, theirs) if is_left else (theirs, ours) for ours, theirs, is_left in pairs])
    study = Study(
        study=secrets.token_hex(6), software=GENERATOR, question=question, seed=seed, methods=list(opened),
        clips=clips, orders=orders,
    )  # fmt: skip
    seconds = {name: min(_seconds(opened[one][name]) for one in opened) for name in names}
    with working_folder(output) as folder:
        new = folder / "study"
        _write_clips(new / PAGE / "clips", study, opened, seconds, square, progress)
        write_text(new / PAGE / "index.html", study_page(study, sum(seconds.values(), Fraction(0)) / len(names)))
        write_text(new / KEY, study.model_dump_json(indent=1) + "\n")
        new.rename(output)
    return study


def study_page(study: Study, seconds: Fraction) -> str:
    """Return the page for participants.

    Args:
        study: its key, of which the page gets no names.
        seconds: mean duration of a clip.
    """
    num_pairs = len(study.orders[0])
    minutes = math.ceil(num_pairs * (seconds + _SECONDS_TO_ANSWER) / 60)
    return render(
        "study.html",
        question=study.question,
        num_pairs=num_pairs,
        minutes=minutes,
        study={"study": study.study, "orders": study.orders},
    )


def _random_names(count: int) -> list[str]:
    """Names that no seed gives away, in an order that tells nothing either."""
    return [f"{number:08x}" for number in random.SystemRandom().sample(range(16**8), count)]


def _write_clips(
    folder: Path,
    study: Study,
    opened: Mapping[str, Mapping[str, VideoReader]],
    seconds: Mapping[str, Fraction],
    square: bool,
    progress: bool,
) -> None:
    folder.mkdir(parents=True)
    # In the order of their random names, so that the files' times tell nothing.
    for clip, origin in tqdm(sorted(study.clips.items()), "clips", unit="clip", disable=not progress):
        reader, length = opened[origin.method][origin.name], seconds[origin.name]
        if _seconds(reader) > length + 1 / reader.rate:
            logger.info(
                "%s of %s lasts %.2f s and another method's %.2f s; the first %.2f s are shown",
                *(origin.name, origin.method, reader.duration, length, length),
            )
        side = min(reader.height, reader.width)
        height, width = (side, side) if square else (reader.height, reader.width)
        top, left = (reader.height - height) // 2, (reader.width - width) // 2
        num_frames = max(1, int(length * reader.rate))
        with open_writer(folder / f"{clip}.mp4", reader.rate, width, height, crf=_CRF, progress=False) as writer:
            for frame in reader.frames(stop=num_frames):
                writer.write(frame[top : top + height, left : left + width])


def _seconds(reader: VideoReader) -> Fraction:
    return reader.num_frames / reader.rate
