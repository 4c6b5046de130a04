"""Estimate of the memory that videos take on each device, the choice what to save, and advice where none is left."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.layout import lay_out
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.hardware import memory_bytes

_GB = 1e9
_FULL = ModelConfig()

# What programs of the full model take beside their arguments, as compiled (benchmarks/results/compiled): the part of
# the UNet's parameters that GPUs keep a second time, in cuDNN's layout; and for each frame, position of its latents and
# byte of the dtype, bytes of the UNet (v5e 4250 to 5200, A100 5770, RTX 4080 5500, H100 4480) and of the decoder.
_UNET_COPIED = {"tpu": 0.0, "gpu": 0.46}
_UNET_BYTES = {"tpu": 5300, "gpu": 5780}
_DECODER_BYTES = {"tpu": 50_000, "gpu": 33_000}
# Part of the memory of a device that is not at hand which programs can have: on GPUs what `cli` asks of jax.
_USABLE = 0.9


class MemoryPlan(NamedTuple):
    """Ways to save memory; none changes the result."""

    in_turn: bool = False
    """Predict the branches of guidance one after the other: half the temporaries, the same FLOPs."""
    unload: bool = False
    """Keep networks that a stage does not use in the host's memory."""


class Estimate(NamedTuple):
    """Bytes on one device."""

    denoising: float
    decoding: float

    @property
    def peak(self) -> float:
        """The larger of the two: they run one after the other."""
        return max(self)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Videos of equal shape that are generated together: everything that their memory depends on.

    Attributes:
        mesh: devices, from `sharding.sampling_mesh`.
        config: sizes of the networks.
        network_bytes: of the parameters of each network, by name.
        itemsize: bytes of the dtype.
        options: of sampling.
        batch_size: number of videos.
        num_frames: of each, the reference's included.
        height: pixels.
        width: pixels.
        spread: devices that share the work of each device of the mesh.
    """

    mesh: Mesh
    config: ModelConfig
    network_bytes: Mapping[str, int]
    itemsize: int
    options: SamplingConfig
    batch_size: int
    num_frames: int
    height: int
    width: int
    spread: int = 1

    def plan(self) -> MemoryPlan:
        """Choose what `options.memory` says; with "auto" the first plan that the device has room for.

        Where the device's memory is unknown (CPUs), nothing is saved.
        """
        limit, low = memory_limit(self.mesh), MemoryPlan(in_turn=self._denoising_frames()[1] > 1, unload=True)
        if self.options.memory == "low":
            return low
        if self.options.memory == "fast" or limit is None:
            return MemoryPlan()
        plans = (MemoryPlan(), MemoryPlan(unload=True), low._replace(unload=False))
        return next((plan for plan in plans if self.estimate(plan).peak <= limit), low)

    def estimate(self, plan: MemoryPlan) -> Estimate:
        """Estimate the bytes on a device in each stage, parameters included."""
        config, sizes = self.config, self.network_bytes
        positions = self.height * self.width // config.vae.downscale**2
        frames, branches = self._denoising_frames()
        chunk = self.batch_size * min(self.options.decode_chunk_size, self.num_frames)
        shapes = (positions, self.itemsize, config, self.mesh.devices.flat[0].platform)
        unet = unet_temporaries(sizes["unet"], frames * (1 if plan.in_turn else branches), *shapes)
        decoder = decoder_temporaries(chunk, *shapes)
        # Each frame's features of the pose, and latents in float32: noise, sums and weights.
        kept = config.pose_net.stem_channels * self.itemsize + 3 * 4 * config.vae.latent_channels
        video = self.batch_size * self.num_frames * positions * kept + self._cache_bytes(positions)
        used = (sizes["unet"] + sizes["pose_net"], sizes["vae"]) if plan.unload else (sum(sizes.values()),) * 2
        return Estimate(used[0] + video + unet, used[1] + decoder)

    def describe(self, plan: MemoryPlan) -> str:
        """Say in one line what is saved, and why."""
        needs, limit = self.estimate(plan), memory_limit(self.mesh)
        of = "" if limit is None else f" of {limit / _GB:.1f} GB"
        branches = "in turn" if plan.in_turn else "together"
        idle = "in the host's memory" if plan.unload else "on the device"
        return (
            f"memory={self.options.memory}: denoising takes about {needs.denoising / _GB:.1f} GB and decoding "
            f"{needs.decoding / _GB:.1f} GB{of}; branches of guidance {branches}, idle networks {idle}"
        )

    def advise(self, stage: Literal["denoising", "decoding"]) -> str:
        """Say what a stage takes, and how much of that each option frees."""

        def needs(work: "Workload") -> float:
            return getattr(work.estimate(work.plan()), stage)

        now, limit = needs(self), memory_limit(self.mesh)
        freed = {option: now - needs(other) for option, other in self._smaller()}
        helpful = [f"{option} frees {size / _GB:.1f} GB" for option, size in freed.items() if size > 0.01 * now]
        of = "" if limit is None else f" of {limit / _GB:.1f} GB"
        return f"{stage} takes about {now / _GB:.1f} GB{of}; {', '.join(helpful) or 'use a device with more memory'}"

    def _smaller(self) -> Iterator[tuple[str, "Workload"]]:
        """Workloads with one option changed, and that change; from those that cost nothing to those that show."""
        options, multiple = self.options, self.config.size_multiple

        def changed(**changes: Any) -> Workload:
            return dataclasses.replace(self, options=dataclasses.replace(options, **changes))

        yield "memory=low", changed(memory="low")
        yield "batch_size=1", dataclasses.replace(self, batch_size=1)
        yield "group_size=1", changed(group_size=1)
        yield f"{2 * self.mesh.size} devices in place of {self.mesh.size}", dataclasses.replace(self, spread=2)
        if (chunk := options.decode_chunk_size // 2) > (options.decode_overlap or 0):
            yield f"decode_chunk_size={chunk}", changed(decode_chunk_size=chunk)
        window = self._window_size() // 2
        if window > 1:
            yield f"window_size={window}", changed(window_size=window, window_overlap=None)
        height, width = (max(side * 2 // 3 // multiple, 1) * multiple for side in (self.height, self.width))
        yield f"height={height} width={width}", dataclasses.replace(self, height=height, width=width)

    def _denoising_frames(self) -> tuple[float, int]:
        """Frames in the UNet's batch on one device, for each branch of guidance; and branches that it predicts."""
        size = (self.batch_size, self.num_frames, self.height, self.width)
        layout = lay_out(self.mesh, self.config, self.options, *size)
        axes = layout.mesh.shape
        frames = self.batch_size * layout.group / axes[sharding.WINDOWS] * self._window_size() / axes[sharding.FRAMES]
        branches = 2 if self.options.guided and axes[sharding.BRANCHES] == 1 else 1
        # Further devices take whole windows, then branches, then frames of a window.
        spread = self.spread if layout.capacity <= self.mesh.size else 1
        return (frames, branches // spread) if branches >= spread else (frames / spread, branches)

    def _cache_bytes(self, positions: int) -> float:
        """Bytes on a device of the features that are kept between steps: of each window, and branch of guidance."""
        options = self.options
        if options.cache_interval == 1:
            return 0.0
        layout = lay_out(self.mesh, self.config, options, self.batch_size, self.num_frames, self.height, self.width)
        channels, level = self.config.unet.deep_features(options.cache_depth)
        windows = -(-layout.capacity // layout.group) * layout.group
        frames = self.batch_size * windows * self._window_size() * (2 if options.guided else 1)
        return frames * positions / 4**level * channels * self.itemsize / self.mesh.size / self.spread

    def _window_size(self) -> int:
        return self.options.window_size or self.config.window_size


def unet_temporaries(
    parameters: int, frames: float, positions: int, itemsize: int, config: ModelConfig, platform: str
) -> float:
    """Estimate the bytes that denoising takes on one device beside parameters and latents.

    Args:
        parameters: bytes of the UNet's parameters.
        frames: frames in the UNet's batch on the device: videos x branches x windows x frames of a window.
        positions: of a frame's latents, height times width.
        itemsize: bytes of the dtype.
        config: sizes of the networks.
        platform: jax's name; an unknown one is taken for a GPU.
    """
    width = config.unet.block_out_channels[0] / _FULL.unet.block_out_channels[0]
    copied = parameters * _of(platform, _UNET_COPIED)
    return copied + frames * positions * itemsize * width * _of(platform, _UNET_BYTES)


def decoder_temporaries(frames: int, positions: int, itemsize: int, config: ModelConfig, platform: str) -> float:
    """Estimate the bytes that the VAE's decoder takes on one device beside its parameters.

    Args:
        frames: frames that are decoded together: videos x frames of a chunk.
        positions: see `unet_temporaries`.
        itemsize: likewise.
        config: likewise.
        platform: likewise.
    """
    width = config.vae.block_out_channels[0] / _FULL.vae.block_out_channels[0]
    return frames * positions * itemsize * width * _of(platform, _DECODER_BYTES)


def _of(platform: str, values: Mapping[str, float]) -> float:
    return values.get(platform, values["gpu"])


def memory_limit(mesh: Mesh) -> float | None:
    """Bytes that programs can have on each device of a mesh, None if unknown (CPUs).

    Of devices that are not at hand it is a part of what their makers' data sheets say.
    """
    device = mesh.devices.flat[0]
    if device in jax.local_devices():
        stats = device.memory_stats()
        total = stats.get("bytes_limit") if stats else None
        return None if total is None else float(total)
    total = memory_bytes(device.device_kind)
    return None if total is None else _USABLE * total
