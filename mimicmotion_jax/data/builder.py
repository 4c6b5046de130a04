"""TFDS builder that writes prepared records, in a given order, as shards of ArrayRecord on Apache Beam."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.splits import SplitDict

from mimicmotion_jax.data import record

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
