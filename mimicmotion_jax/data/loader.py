"""Batches of training samples, read ahead with Grain; the same for any number of processes and workers."""

from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from mimicmotion_jax.data.clips import DataConfig, make_sample
from mimicmotion_jax.data.dataset import EXTRA, DatasetInfo, Records, read_info
from mimicmotion_jax.data.record import PoseVideo
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.seeds import fold_seed

Batch = dict[str, np.ndarray]

_END = 2**32  # sample numbers are uint32; without an end, Grain overflows on batches of one


class ClipLoader:
    """Endless iterator of batches; every epoch visits every video once, each time in another order.

    Samples are numbered: sample s is drawn from the s-th video of the shuffled sequence with a generator seeded by
    (seed, s). Batch k of all shards together holds the samples k * batch_size ... (k + 1) * batch_size - 1; shard p of
    n has those with s % n == p, in order. A batch holds, for its b = batch_size / num_shards samples:

        index                uint32 [b]                 numbers of the samples
        poses                uint8 [b, F, H, W, 3]      drawn keypoints, RGB
        hand_mask            bool [b, F, h, w]          latent cells that show hands
        frames, reference    uint8 [b, F, H, W, 3], uint8 [b, H, W, 3]
      or, with `config.encodings`,
        latents              float32 [b, F, h, w, c]    not multiplied by the scaling factor
        reference_latents    float32 [b, h, w, c]
        embedding            float32 [b, d]             CLIP embedding of the reference
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        seed: int,
        shard: int = 0,
        num_shards: int = 1,
        downscale: int = 8,
    ):
        """Open a dataset.

        Args:
            config: options of the dataset and its clips.
            batch_size: number of samples in all shards together.
            seed: determines the order and everything random, at least 0.
            shard: number of this process's shard.
            num_shards: number of processes that share a batch.
            downscale: pixels per latent cell.

        Raises:
            InputError: no dataset, another version of it, or no video long enough; encodings that are not stored or
                were made at another size; a batch that the shards cannot share. While iterating: a damaged record.
        """
        if batch_size < 1 or num_shards < 1 or batch_size % num_shards:
            raise InputError(f"a batch of {batch_size} cannot be shared by {num_shards} processes; use a multiple.")
        if not 0 <= shard < num_shards or seed < 0:
            raise InputError(f"shard {shard} of {num_shards} or seed {seed} is out of range.")
        if config.height % downscale or config.width % downscale:
            raise InputError(f"the size {config.width}x{config.height} is no multiple of {downscale} pixels.")
        info = read_info(config.dataset)
        _check_encodings(info, config)
        usable = _usable(info, config)
        self.num_videos = len(usable)
        """Number of videos that are long enough for a clip."""
        self.contents = info.contents
        """Changes whenever a record of the dataset does."""
        self._config, self._seed, self._downscale = config, fold_seed(seed), downscale
        self._batch_size, self._shard, self._num_shards = batch_size, shard, num_shards
        self._source: Any = _Subset(Records(config.dataset), usable)
        self._batches = 0
        self._iterator: Iterator[Batch | InputError] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._batches += 1
        if isinstance(batch, InputError):
            raise batch
        return batch

    def get_state(self) -> dict[str, int]:
        """Return the iterator's position; it is the same for every shard and any number of shards and workers."""
        return {"batches": self._batches}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from a position that `get_state` returned.

        Raises:
            InputError: not a state.
        """
        batches = state.get("batches") if isinstance(state, dict) else None
        if not isinstance(batches, int) or batches < 0:
            raise InputError(f"{state!r} is not the state of a data iterator.")
        self.close()
        self._batches = batches

    def close(self) -> None:
        """Stop reading ahead; the next batch starts it again."""
        # Older versions of Grain close only iterators that own processes; others end with their last reference.
        if close := getattr(self._iterator, "close", None):
            close()
        self._iterator = None

    def _start(self) -> Iterator[Batch | InputError]:
        """Start reading at the current batch.

        Starting Grain at an offset, rather than restoring its iterator's own state, makes resuming independent of the
        number of processes and workers. Batches are formed before the workers' part, so that their order is too.
        """
        try:
            import grain
            from absl import flags
        except ImportError:
            raise InputError(f"reading training data needs Grain; run {EXTRA}.") from None
        config = self._config
        mine = slice(self._batches * self._batch_size + self._shard, _END, self._num_shards)
        dataset = (
            grain.MapDataset.source(self._source)
            .shuffle(seed=self._seed)
            .repeat()
            .map_with_index(_MakeSample(config, self._seed, self._downscale))
            .slice(mine)
            .batch(self._batch_size // self._num_shards, batch_fn=_stack)
        )
        if not config.num_workers:
            options = grain.ReadOptions(num_threads=config.prefetch, prefetch_buffer_size=config.prefetch)
            return iter(dataset.to_iter_dataset(options))
        if not flags.FLAGS.is_parsed():  # Grain looks its own flags up when it starts processes
            flags.FLAGS.mark_as_parsed()
        in_worker = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        processes = grain.multiprocessing.MultiprocessingOptions(
            num_workers=config.num_workers, per_worker_buffer_size=max(config.prefetch, 1)
        )
        return iter(dataset.to_iter_dataset(in_worker).mp_prefetch(processes))


class _Subset:
    """Records by their place in `numbers`; a damaged one is returned as its error, to pass through worker processes."""

    def __init__(self, records: Records, numbers: Sequence[int]):
        self._records, self._numbers = records, list(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, record_key: SupportsIndex) -> PoseVideo | InputError:
        try:
            return self._records[self._numbers[record_key]]
        except InputError as error:
            return error


class _MakeSample:
    """Picklable form of `make_sample` for Grain."""

    def __init__(self, config: DataConfig, seed: int, downscale: int):
        self._arguments = config, seed, downscale

    def __call__(self, sample: int, record: PoseVideo | InputError) -> dict[str, Any] | InputError:
        if isinstance(record, InputError):
            return record
        config, seed, downscale = self._arguments
        try:
            return make_sample(record, config, seed, sample, downscale)
        except InputError as error:
            return InputError(f"{record.name}: {error}")


def _stack(samples: Sequence[dict[str, Any] | InputError]) -> Batch | InputError:
    arrays: list[dict[str, Any]] = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        arrays.append(sample)
    return {key: np.stack([sample[key] for sample in arrays]) for key in arrays[0]}


def _usable(info: DatasetInfo, config: DataConfig) -> list[int]:
    """Return numbers of the records that are long enough, sorted by name, so that the sharding does not matter."""
    order = sorted(range(len(info.records)), key=lambda number: info.records[number].name)
    usable = [number for number in order if info.records[number].num_frames >= config.min_video_frames]
    if not usable:
        longest = max((record.num_frames for record in info.records), default=0)
        raise InputError(
            f"no video in {config.dataset} is long enough for {config.num_frames} frames at an interval of "
            f"{config.interval[0]}, which needs {config.min_video_frames}: the longest has {longest}."
        )
    return usable


def _check_encodings(info: DatasetInfo, config: DataConfig) -> None:
    if not config.encodings:
        return
    if info.encodings is None:
        raise InputError(
            f"{config.dataset} holds no encodings; prepare it with encode=CHECKPOINT, or leave encodings off."
        )
    stored = (info.encodings.width, info.encodings.height)
    if stored != (config.width, config.height):
        raise InputError(
            f"the encodings in {config.dataset} were made at {stored[0]}x{stored[1]} pixels, not {config.width}x"
            f"{config.height}; set width={stored[0]} height={stored[1]} or prepare them again."
        )
