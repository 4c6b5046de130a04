"""From a source of videos to a dataset on disk: what `prepare_data.py` calls."""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic
from etils import epath
from pydantic import Field

from mimicmotion_jax.checkpoint import plan_groups
from mimicmotion_jax.config import config_dataclass, values_of
from mimicmotion_jax.data import record
from mimicmotion_jax.data.beam import Beam, choose_runner, prepare_items
from mimicmotion_jax.data.dataset import EXTRA, DatasetInfo, RecordInfo, read_info, records_path
from mimicmotion_jax.data.recipe import Encoding, Part, Recipe, detector
from mimicmotion_jax.data.sources import Item, Source
from mimicmotion_jax.data.work import Workshop, read_part
from mimicmotion_jax.pose.options import DetectorOptions, PersonChoice
from mimicmotion_jax.runtime.atomic_files import absolute_path, replace_directory, restore_directory, write_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.config import WorldConfig

logger = logging.getLogger(__name__)

WORK = ".work"
SHARD_BYTES = 2**28  # a shard's records lie in memory while it is written


_Pixels = Annotated[int, Field(ge=1)]


@config_dataclass
class PrepareConfig(DetectorOptions):
    """Everything that `prepare_data.py` lets you choose, beside the folders."""

    resolution: Annotated[int, Field(ge=64)] = 576  # short side of the stored frames, pixels; never enlarged
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    max_seconds: Annotated[float, Field(gt=0, le=1e6)] = 60.0  # longer videos are cut into equal parts
    min_frames: Annotated[int, Field(ge=1)] = 17  # shorter videos are skipped
    person: PersonChoice = "largest"
    encode: str | None = None  # checkpoint whose VAE and CLIP outputs are stored for every frame
    size: tuple[_Pixels, _Pixels] = (1024, 576)  # width, height at which they see the frames
    batch_size: Annotated[int, Field(ge=1)] = 8  # frames that are encoded together
    world: WorldConfig = WorldConfig()  # with --synthetic

    @property
    def recipe(self) -> Recipe:
        """What determines the records."""
        return Recipe(
            resolution=self.resolution,
            crf=self.crf,
            max_seconds=self.max_seconds,
            min_frames=self.min_frames,
            person=self.person,
            detector=DetectorOptions(**values_of(DetectorOptions, self)),
        )

    def encoding(self) -> Encoding | None:
        """What is to be encoded; `InputError` where there is no such checkpoint."""
        if self.encode is None:
            return None
        from mimicmotion_jax.data.encodings import describe_encodings

        return Encoding(self.encode, describe_encodings(self.encode, *self.size), self.batch_size)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What came of a preparation; also in `summary.json`."""

    prepared: int
    """Videos."""
    records: int
    """Videos, or parts of those that were cut up."""
    frames: int
    seconds: float
    skipped: Mapping[str, str]
    """Why, by name."""

    def __str__(self) -> str:
        text = f"prepared {self.prepared} videos ({self.frames} frames, {self.seconds / 60:.1f} minutes)"
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in self.skipped.items())
        return f"{text}, {len(self.skipped)} skipped:{reasons}" if self.skipped else f"{text}, none skipped"


def prepare(
    source: Source,
    output: epath.PathLike,
    config: PrepareConfig,
    beam_options: Sequence[str] = (),
    progress: bool = True,
) -> Summary:
    """Detect, cut, encode and write a dataset; what an earlier run has done is not done again.

    Args:
        source: the videos.
        output: folder of the dataset, local or gs://; what is kept for a rerun is in `.work` in it.
        config: options.
        beam_options: Apache Beam's, as `key=value`, for example `runner=DataflowRunner`. By default Beam's local
            runner works in this process.
        progress: show bars.

    Raises:
        InputError: no videos, none that can be used, something missing, or an output that cannot be written.
    """
    output, encoding = absolute_path(output), config.encoding()
    items, repeated = _distinct(source.items(progress))
    contents = _fingerprint(items, config.recipe, encoding)
    restore_directory(output / record.NAME)
    if (finished := _finished(output, contents)) is not None:
        logger.info("%s is up to date.", output)
        return finished
    run_beam = choose_runner(beam_options)
    try:
        (output / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {output}: {error.strerror or error}; choose another output.") from None
    workshop = Workshop(source, config.recipe, encoding, str(output / WORK))
    for leftover in (output / WORK).glob(".*.tmp"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    if not beam_options and any(workshop.needs_detector(item) for item in items):
        detector(config.recipe.detector)  # says at once if there is none
    prepare_items(workshop, items, run_beam, progress)

    results = {item.name: workshop.result(item) for item in items}
    parts = [part for result in results.values() if not isinstance(result, str) for part in result]
    skipped = {name: result for name, result in results.items() if isinstance(result, str)} | repeated
    summary = Summary(
        prepared=len(items) + len(repeated) - len(skipped),
        records=len(parts),
        frames=sum(part.num_frames for part in parts),
        seconds=sum(part.num_frames / part.fps for part in parts),
        skipped=skipped,
    )
    if not parts:
        _write_json(output / "summary.json", dataclasses.asdict(summary))
        name, reason = next(iter(skipped.items()))
        raise InputError(
            f"none of the {len(skipped)} videos can be used; {name}: {reason} The other reasons are in "
            f"{output / 'summary.json'}."
        )
    info = DatasetInfo(
        contents=contents,
        options=dataclasses.asdict(config.recipe),
        encodings=None if encoding is None else encoding.info,
        records=[RecordInfo(**{key: getattr(part, key) for key in RecordInfo.model_fields}) for part in parts],
    )
    _write_dataset(output, parts, info, run_beam)
    _write_json(output / "summary.json", dataclasses.asdict(summary))
    return summary


def _distinct(items: Sequence[Item]) -> tuple[list[Item], dict[str, str]]:
    """The items but for those with the same content as an earlier one, and the reason for leaving those out."""
    first: dict[str, Item] = {}
    repeated = {}
    for item in items:
        if first.setdefault(item.content, item) is not item:
            repeated[item.name] = f"it is the same as {first[item.content].name}."
    return list(first.values()), repeated


def _fingerprint(items: Sequence[Item], recipe: Recipe, encoding: Encoding | None) -> str:
    keys = [(item.name, encoding.key(recipe.key(item)) if encoding else recipe.key(item)) for item in items]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def _finished(output: epath.Path, contents: str) -> Summary | None:
    """What an earlier run said, if its dataset is of these contents."""
    if not (records_path(output) / "metadata.json").exists() or not (output / "summary.json").exists():
        return None
    try:
        if read_info(output).contents != contents:
            return None
    except InputError:  # damaged, to be made anew
        return None
    try:
        return pydantic.TypeAdapter(Summary).validate_json((output / "summary.json").read_bytes())
    except pydantic.ValidationError:  # damaged; finished is what can say what came of it
        return None


def _write_dataset(output: epath.Path, parts: Sequence[Part], info: DatasetInfo, run_beam: Beam) -> None:
    """Build beside the earlier dataset, then put it in its place."""
    try:
        from mimicmotion_jax.data.builder import PoseVideos, build
    except ImportError:
        raise InputError(f"preparing data needs TensorFlow Datasets; run {EXTRA}.") from None
    new = output / WORK / "new"
    new.rmtree(missing_ok=True)
    encodings = info.encodings
    features = record.features(*((encodings.latent_shape, encodings.embedding_size) if encodings else ()))
    groups = plan_groups({number: part.num_bytes for number, part in enumerate(parts)}, SHARD_BYTES)
    shards = [[parts[number] for number in group] for group in groups]
    builder = PoseVideos(
        data_dir=str(new), shards=shards, read=read_part, features=features, metadata=info.model_dump(mode="json")
    )
    logger.info("writing %d records in %d shards", len(parts), len(shards))
    # TFDS prints what it is about to download.
    with contextlib.redirect_stdout(io.StringIO()):
        build(builder, [len(shard) for shard in shards], run_beam.runner, run_beam.options())
    replace_directory(new / record.NAME, output / record.NAME, f"{record.VERSION}/metadata.json")
    new.rmtree()


def _write_json(path: epath.Path, content: Mapping[str, Any]) -> None:
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())
