"""Preparation of a dataset from a source of videos: detect, cut, encode and write; run by `mimicmotion prepare`."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pydantic
from etils import epath
from pydantic import Field

from mimicmotion_jax.config import config_dataclass, values_of
from mimicmotion_jax.data import record
from mimicmotion_jax.data.beam import plain_run_errors, prepare_items
from mimicmotion_jax.data.dataset import EXTRA, DatasetInfo, RecordInfo, read_info, records_path
from mimicmotion_jax.data.pieces import FAILED, Encoding, LeftOut, Outcome, Part, Recipe, RunError, explain_write_errors
from mimicmotion_jax.data.sources import Item, Source
from mimicmotion_jax.data.work import Preparer
from mimicmotion_jax.pose.options import DetectorOptions, PersonChoice
from mimicmotion_jax.runtime.atomic_files import (
    absolute_path,
    exclusive,
    replace_directory,
    restore_directory,
    write_file,
)
from mimicmotion_jax.runtime.beam import Beam, choose_runner
from mimicmotion_jax.runtime.build_cache import BuildCache, content_key
from mimicmotion_jax.runtime.errors import InputError

logger = logging.getLogger(__name__)

WORK = ".work"
LOG = "prepare.log"

_Pixels = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]


@config_dataclass
class PrepareConfig(DetectorOptions):
    """Options of the preparation."""

    resolution: Annotated[int, Field(ge=64)] = 576
    """Short side of the stored frames in pixels; smaller videos are not enlarged."""
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    """Quality of the stored videos, from 0 (best) to 51 (smallest)."""
    max_seconds: Annotated[float, Field(gt=0, le=1e6)] = 60.0
    """Cut longer videos into equal parts."""
    min_frames: Annotated[int, Field(ge=1)] = 17
    """Skip shorter videos."""
    person: PersonChoice = "largest"
    """Person to follow if there are several: largest, central, or a number from 0."""
    split_cuts: bool = True
    """Cut a video where its picture or the person's place changes at once, so that each part is one shot."""
    max_still: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Leave stretches out in which the picture stands still for more than so many seconds."""
    max_crowd: _Share = 0.1
    """Leave parts out of whose frames a larger share shows somebody else, at least half as large as the person."""
    min_hands: _Share = 0.05
    """Leave parts out of whose frames a smaller share shows a hand; no matter where keypoints come without hands."""
    min_motion: Annotated[float, Field(ge=0, le=1)] = 0.005
    """Leave parts of a second or more out in which the joints move less: standard deviation, in sizes of the body."""
    tolerate_truncation: bool = False
    """Use the readable part of a video that breaks off, which is skipped otherwise."""
    encode: str | None = None
    """Checkpoint whose VAE and CLIP outputs are stored for every frame; null stores none."""
    size: tuple[_Pixels, _Pixels] = (1024, 576)
    """Width and height at which frames are encoded; data.width and data.height of the training."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Number of frames that are encoded together; more needs more memory."""

    def encoding(self) -> Encoding | None:
        """Describe the encodings to compute; None if none are.

        Raises:
            InputError: no such checkpoint.
        """
        if self.encode is None:
            return None
        from mimicmotion_jax.data.encodings import describe_encodings

        return Encoding(self.encode, describe_encodings(self.encode, *self.size), self.batch_size)

    def recipe(self, detector: str | None) -> Recipe:
        """Return the options that determine a prepared video; `detector` names the detector that runs."""
        names = [field.name for field in dataclasses.fields(Recipe) if field.name != "detector"]
        return Recipe(**{name: getattr(self, name) for name in names}, detector=detector)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Result of a preparation; also in `summary.json`."""

    prepared: int
    """Number of videos."""
    records: int
    """Number of videos, or of parts where they were cut."""
    frames: int
    seconds: float
    skipped: Mapping[str, str]
    """Videos that are not in the dataset: reasons by name."""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Stretches of videos that are not in it: reasons by name and range of frames, such as `a.mp4[0:40]`."""
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Number of such videos and stretches by the kind of the reason, such as `several people`."""

    @classmethod
    def of(
        cls, parts: Sequence[Part], num_videos: int, skipped: Mapping[str, str], flaws: Sequence[LeftOut]
    ) -> "Summary":
        """Sum up the parts of `num_videos` videos, those in `skipped` included; `flaws` says more, of stretches too."""
        frames, seconds = sum(part.num_frames for part in parts), sum(part.num_frames / part.fps for part in parts)
        left_out = {name: reason for name, reason in _reasons(flaws).items() if name not in skipped}
        reasons = dict(sorted(Counter(flaw.flaw for flaw in flaws).items()))
        return cls(num_videos - len(skipped), len(parts), frames, seconds, skipped, left_out, reasons)

    def __str__(self) -> str:
        text = f"prepared {self.prepared} videos ({self.frames} frames, {self.seconds / 60:.1f} minutes)"
        lists = [f"{len(self.skipped)} skipped" if self.skipped else "none skipped"]
        if self.left_out:
            lists.append(f"{len(self.left_out)} {'stretch' if len(self.left_out) == 1 else 'stretches'} left out")
        both = {**self.skipped, **self.left_out}
        return ", ".join([text, *lists]) + (":" if both else "") + "".join(f"\n  {n}: {both[n]}" for n in both)


def prepare(
    source: Source,
    output: epath.PathLike,
    config: PrepareConfig,
    beam_options: Sequence[str] = (),
    progress: bool = True,
) -> Summary:
    """Prepare a dataset; what an earlier run has finished is not done again.

    A video that cannot be used is skipped. After an unexpected error the traceback is in `prepare.log`, and the next
    run tries that video again.

    Args:
        source: the videos.
        output: folder of the dataset, local or gs://; `.work` in it is the cache of finished pieces.
        config: options.
        beam_options: Apache Beam's, as `key=value`, for example `runner=DataflowRunner`. By default Beam's local
            runner works in this process.
        progress: show progress bars.

    Raises:
        InputError: no usable video, no detector or checkpoint, an output that cannot be written or that another run is
            writing.
    """
    output = absolute_path(output)
    encoding, run_beam = config.encoding(), choose_runner(beam_options, "train")
    with exclusive(output):
        items, unusable = _usable(source.items(progress))
        detector = DetectorOptions(**values_of(DetectorOptions, config))
        identity = None if all(item.has_keypoints for item in items) else detector.identity()
        cache = BuildCache(str(output / WORK))
        preparer = Preparer(source, config.recipe(identity), detector, encoding, cache)
        with explain_write_errors(output):
            return _prepare(preparer, items, unusable, output, run_beam, progress)


def _prepare(
    preparer: Preparer,
    items: Sequence[Item],
    unusable: Sequence[LeftOut],
    output: epath.Path,
    run_beam: Beam,
    progress: bool,
) -> Summary:
    contents = content_key([(item.name, preparer.finished_name(item)) for item in items], _reasons(unusable))
    restore_directory(output / record.NAME)
    if (finished := _finished(output, contents)) is not None:
        logger.info("%s is up to date.", output)
        return finished
    (output / WORK).mkdir(parents=True, exist_ok=True)
    preparer.cache.remove(".tmp", FAILED)  # of an earlier run
    try:
        return _build(preparer, items, unusable, output, contents, run_beam, progress)
    except RunError:
        # If a damaged piece of an earlier run is the reason, a second attempt makes it again.
        damaged = [item for item in items if (found := preparer.outcome(item)) and not preparer.is_whole(found)]
        if not damaged:
            raise
        preparer.cache.remove(*map(preparer.finished_name, damaged))
        return _build(preparer, items, unusable, output, contents, run_beam, progress)


def _usable(items: Sequence[Item]) -> tuple[list[Item], list[LeftOut]]:
    """Separate items to prepare from those to skip: unreadable, or the same as an earlier one."""
    first: dict[str, Item] = {}
    unusable = []
    for item in items:
        if item.problem is not None:
            unusable.append(LeftOut(item.name, "unreadable", item.problem))
        elif first.setdefault(item.content, item) is not item:
            unusable.append(LeftOut(item.name, "duplicate", f"it is the same as {first[item.content].name}."))
    return list(first.values()), unusable


def _reasons(left_out: Sequence[LeftOut]) -> dict[str, str]:
    return {flaw.name: flaw.reason for flaw in left_out}


def _build(
    preparer: Preparer,
    items: Sequence[Item],
    unusable: Sequence[LeftOut],
    output: epath.Path,
    contents: str,
    run_beam: Beam,
    progress: bool,
) -> Summary:
    """Prepare what is missing and write the dataset with its summary."""
    outcomes = _outcomes(preparer, items, run_beam, progress)
    failures = {item: preparer.failure(item) for item, outcome in outcomes.items() if outcome is None}
    log = "\n".join(f"{item.name}\n{failure.traceback}" for item, failure in failures.items() if failure)
    write_file(output / LOG, log.encode()) if log else (output / LOG).unlink(missing_ok=True)
    failed = [
        LeftOut(
            item.name, "error", f"unexpected error ({failure.reason if failure else 'no result'}); see {output / LOG}."
        )
        for item, failure in failures.items()
    ]
    done = {item: outcome for item, outcome in outcomes.items() if outcome is not None}
    skipped = _reasons(failed)
    skipped |= {item.name: outcome.skipped for item, outcome in done.items() if outcome.skipped is not None}
    skipped |= _reasons(unusable)
    flaws = [*failed, *unusable, *(stretch for outcome in done.values() for stretch in outcome.left_out)]
    parts = [part for outcome in done.values() for part in outcome.parts]
    summary = Summary.of(parts, len(items) + len(unusable), skipped, flaws)
    if parts:
        info = DatasetInfo(
            contents="" if failures else contents,  # the next run tries those again
            options=dataclasses.asdict(preparer.recipe),
            encodings=None if preparer.encoding is None else preparer.encoding.info,
            records=[RecordInfo(**{key: getattr(part, key) for key in RecordInfo.model_fields}) for part in parts],
        )
        _write_dataset(output, parts, preparer.read, info, run_beam)
    write_file(output / "summary.json", (json.dumps(dataclasses.asdict(summary), indent=2) + "\n").encode())
    if not parts:
        name, reason = next(iter(summary.skipped.items()))
        raise InputError(
            f"none of the {len(summary.skipped)} videos can be used; {name}: {reason} The other reasons are in "
            f"{output / 'summary.json'}."
        )
    return summary


def _outcomes(preparer: Preparer, items: Sequence[Item], run_beam: Beam, progress: bool) -> dict[Item, Outcome | None]:
    """Prepare the items that are not finished; None for those that failed."""
    names = preparer.cache.names()
    outcomes = {item: preparer.outcome(item) if preparer.finished_name(item) in names else None for item in items}
    missing = [item for item, outcome in outcomes.items() if outcome is None]
    if missing:
        prepare_items(preparer, missing, len(items) - len(missing), run_beam, progress)
        outcomes |= {item: preparer.outcome(item) for item in missing}
    return outcomes


def _finished(output: epath.Path, contents: str) -> Summary | None:
    """Return the summary of an earlier run if its dataset has these contents and is whole."""
    if not (records_path(output) / "metadata.json").exists() or not (output / "summary.json").exists():
        return None
    try:
        if read_info(output).contents != contents:
            return None
        return pydantic.TypeAdapter(Summary).validate_json((output / "summary.json").read_bytes())
    except (InputError, pydantic.ValidationError):  # damaged, to be made again
        return None


def _write_dataset(
    output: epath.Path, parts: Sequence[Part], read: Callable[[Part], Any], info: DatasetInfo, run_beam: Beam
) -> None:
    """Build beside the earlier dataset, then put it in its place."""
    try:
        from mimicmotion_jax.data.builder import build_dataset
    except ImportError:
        raise InputError(f"preparing data needs TensorFlow Datasets; run {EXTRA}.") from None
    new = output / WORK / "new"
    new.rmtree(missing_ok=True)
    with plain_run_errors():
        build_dataset(new, parts, read, info, run_beam)
    replace_directory(new / record.NAME, output / record.NAME, f"{record.VERSION}/metadata.json")
    new.rmtree()
