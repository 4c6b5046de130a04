"""Files of a study: the key, which tells whose clips are whose, and the answers of its participants.

DIR/page/index.html, DIR/page/clips/    the part for participants; clips have random names
DIR/key.json                            the part that stays with the researcher
DIR/answers/PARTICIPANT.json            answers, one file per participant
DIR/report.json, DIR/report.html        preferences
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.natural_order import natural_key

PAGE, KEY, ANSWERS = "page", "key.json", "answers"
"""Names in the folder of a study."""

MAX_ANSWERS = 2**22
"""Largest file of answers, in bytes."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Clip(_Record):
    """Origin of a clip: the method, and the name of its video."""

    method: str
    name: str


class Study(_Record):
    """Key of a study.

    Attributes:
        study: random name, which the answers repeat.
        software: program that wrote it.
        question: text above the videos.
        seed: of the orders.
        methods: their names; the first is compared with each of the others.
        clips: origin of each clip.
        orders: for each participant, the clips that are shown on the left and on the right.
    """

    study: str
    software: str
    question: str
    seed: int
    methods: list[str]
    clips: dict[str, Clip]
    orders: list[list[tuple[str, str]]]


class Choice(_Record):
    """Answer to one pair.

    Attributes:
        left: clip on the left.
        right: clip on the right.
        chosen: side that was preferred.
        seconds: time from the first end of the videos to the answer.
        plays: number of times that the pair was played.
    """

    left: str
    right: str
    chosen: Literal["left", "right"]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    plays: Annotated[int, Field(ge=1)]


class Answers(_Record):
    """Answers of one participant, as the page writes them.

    Attributes:
        study: name of the study.
        participant: code of the participant.
        order: number of the order that was shown.
        started: time of the first pair.
        finished: time of the last answer.
        choices: one per pair, as they were shown.
    """

    study: str
    participant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    order: Annotated[int, Field(ge=0)]
    started: AwareDatetime
    finished: AwareDatetime
    choices: list[Choice]


def read_study(folder: Path) -> Study:
    """Read the key of a study.

    Raises:
        InputError: no folder of a study, or a damaged key.
    """
    path = folder / KEY
    if not path.is_file():
        raise InputError(f"{folder} is not the folder of a study (it has no {KEY}); give what --output wrote.")
    try:
        return Study.model_validate_json(path.read_bytes())
    except ValidationError:
        raise InputError(f"{path} is damaged; without it nobody knows whose clips are whose, so restore it.") from None


def parse_answers(content: bytes, study: Study, name: str) -> Answers:
    """Read the answers of one participant, complete and of this study.

    Args:
        content: JSON.
        study: key of the study.
        name: of the file, for messages.

    Raises:
        InputError: damaged, of another study, or not the pairs that were to be shown.
    """
    try:
        answers = Answers.model_validate_json(content[: MAX_ANSWERS + 1])
    except ValidationError:
        raise InputError(
            f"{name} is damaged or holds no answers; ask the participant to send the file again."
        ) from None
    if answers.study != study.study:
        raise InputError(f"{name} answers another study ({answers.study}, this is {study.study}); leave it out.")
    shown = [(choice.left, choice.right) for choice in answers.choices]
    if answers.order >= len(study.orders) or shown != study.orders[answers.order]:
        raise InputError(f"{name} was changed: its pairs are not those that the page shows in order {answers.order}.")
    return answers


def save_answers(folder: Path, answers: Answers) -> Path:
    """Write answers to a new file in `folder`, named after the participant; files that exist stay as they are."""
    folder.mkdir(exist_ok=True)
    names = (f"{answers.participant}{suffix}.json" for suffix in _suffixes())
    for path in map(folder.joinpath, names):
        try:
            with path.open("x") as file:
                file.write(answers.model_dump_json(indent=1) + "\n")
        except FileExistsError:
            continue
        return path
    raise AssertionError("suffixes have no end")


def _suffixes() -> Iterable[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))


def find_answers(places: Iterable[Path]) -> list[Path]:
    """List files of answers: those given, and all `.json` in folders that are given.

    Raises:
        InputError: a missing file or folder, or no answers at all.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise InputError(f"there are no answers at {place}; check the path.")
        inside = sorted(place.glob("*.json"), key=lambda path: natural_key(path.name)) if place.is_dir() else [place]
        found += [path for path in inside if path.resolve() not in {known.resolve() for known in found}]
    if not found:
        raise InputError("there are no answers yet; put the participants' files into the folder answers of the study.")
    return found


def read_answers(paths: Iterable[Path], study: Study) -> tuple[list[Answers], list[str], list[str]]:
    """Read files of answers; a participant with several counts once, with the answers that were finished first.

    Returns:
        the answers that count, and a sentence for each file that is left out and for each that repeats another.
    """
    read: list[tuple[Answers, Path]] = []
    left_out: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                read.append((parse_answers(file.read(MAX_ANSWERS + 1), study, path.name), path))
        except InputError as error:
            left_out.append(str(error))
    kept: dict[str, tuple[Answers, Path]] = {}
    repeated: list[str] = []
    for answers, path in sorted(read, key=lambda item: item[0].finished):
        if answers.participant in kept:
            first = kept[answers.participant][1].name
            repeated.append(f"{path.name} is of the same participant as {first}, which was finished first and counts.")
        else:
            kept[answers.participant] = answers, path
    return [answers for answers, _ in kept.values()], left_out, repeated
