"""TFDS builder that writes prepared records, in a given order, as shards of ArrayRecord on Apache Beam."""

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.splits import SplitDict

from mimicmotion_jax.data import record
from mimicmotion_jax.data.dataset import DatasetInfo
from mimicmotion_jax.data.pieces import Part
from mimicmotion_jax.runtime.beam import Beam

logger = logging.getLogger(__name__)

SHARD_BYTES = 2**28  # a shard's records are in memory while it is written

Example = tuple[int, dict[str, Any]]
ReadExample = Callable[[Any], Mapping[str, Any]]
"""Function from the reference of a prepared record to its example; runs on Beam's workers."""


class PoseVideos(tfds.core.ShardBasedBuilder):
    """Videos with keypoints. Shards are written one by one, so memory does not grow with the dataset.

    (TFDS's other builders pass every record through a shuffle, which on one machine means through memory.)
    """

    name = record.NAME
    VERSION = tfds.core.Version(record.VERSION)

    def __init__(
        self,
        *,
        data_dir: str,
        shards: Sequence[Sequence[Any]],
        read: ReadExample,
        features: tfds.features.FeaturesDict,
        metadata: Mapping[str, Any],
    ):
        """Plan a dataset.

        Args:
            data_dir: folder in which the dataset becomes NAME/VERSION.
            shards: references of the records of each shard.
            read: returns the example of a reference.
            features: TFDS's description of a record, see `record.features`.
            metadata: JSON values to write beside the records.
        """
        self._shards, self._read, self._features, self._metadata = shards, read, features, metadata
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Videos with whole-body keypoints of one person.",
            features=self._features,
            metadata=tfds.core.MetadataDict(self._metadata),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator[Example]]]]:
        del dl_manager
        return {"train": [functools.partial(_examples, self._read, shard) for shard in self._shards]}


def build_dataset(
    folder: epath.Path, parts: Sequence[Part], read: ReadExample, info: DatasetInfo, run_beam: Beam
) -> None:
    """Write the dataset of `parts` to `folder`, in shards of at most `SHARD_BYTES`.

    Args:
        folder: new folder.
        parts: prepared parts in the order of the records.
        read: returns the example of a part.
        info: metadata.
        run_beam: runner that writes the shards.
    """
    encodings = info.encodings
    sizes = (encodings.latent_shape, encodings.embedding_size) if encodings else (None, None)
    shards = _shards(parts)
    builder = PoseVideos(
        data_dir=str(folder),
        shards=shards,
        read=read,
        features=record.features(*sizes),
        metadata=info.model_dump(mode="json"),
    )
    logger.info("writing %d records in %d shards", len(parts), len(shards))
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints the size of a download that is none
        build(builder, [len(shard) for shard in shards], run_beam.runner, run_beam.options())


def build(builder: PoseVideos, shard_lengths: Sequence[int], beam_runner: Any, beam_options: Any) -> None:
    """Write the dataset; it appears under its name when it is complete."""
    config = tfds.download.DownloadConfig(beam_runner=beam_runner, beam_options=beam_options)
    builder.download_and_prepare(download_config=config, file_format="array_record")
    # On Beam, TFDS sorts the shards' lengths by their numbers as text: 10 comes before 2.
    split: Any = builder.info.splits["train"]
    builder.info.set_splits(SplitDict([split.replace(shard_lengths=list(shard_lengths))]))
    builder.info.write_to_directory(builder.data_path)


def _examples(read: ReadExample, references: Sequence[str]) -> Iterator[Example]:
    for number, reference in enumerate(references):
        yield number, dict(read(reference))


def _shards(parts: Sequence[Part]) -> list[list[Part]]:
    """Cut parts, in order, into groups of at most `SHARD_BYTES`; a larger part is a group of its own."""
    shards: list[list[Part]] = []
    free = 0
    for part in parts:
        if not shards or part.num_bytes > free:
            shards.append([])
            free = SHARD_BYTES
        shards[-1].append(part)
        free -= part.num_bytes
    return shards
