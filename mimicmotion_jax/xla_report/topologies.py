"""TPU slices and GPUs to compile for without having them."""
# pyright: reportInvalidTypeForm=false
# (jaxlib has no stubs, so jax.Device is a variable to a type checker)

import importlib.util
import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hardware import memory_bandwidth, memory_bytes

_RANKS = {"v5e": 2, "v5p": 3, "v6e": 2}  # dimensions of a slice of each generation of TPUs
_FORM = (
    "write it as v5e:2x4, v5p:2x2x2 or v6e:4x4 for TPUs, as a100:8, h100:1, h200:1, rtx4090:1, rtx4080:1 or rtx4060:1 "
    "for GPUs of one machine"
)

# Environment of libtpu, read when it is loaded: it shall describe a slice, not search this machine and its neighbours
# for one, nor take the lock that keeps a second process from compiling.
_LIBTPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclass(frozen=True)
class _GPU:
    """A card as XLA's compiler needs to know it (`GpuTargetConfigProto`), from the maker's data sheets."""

    name: str
    compute_capability: float
    multiprocessors: int
    fpus: int  # float32 units per multiprocessor
    shared_memory: int  # bytes per multiprocessor
    l2_cache: int  # bytes
    clock: float  # GHz
    threads: int = 2048  # per multiprocessor

    def target_config(self) -> str:
        """Write the text proto. The limits of blocks and grids are CUDA's, the same on all these cards."""
        fields = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "threads_per_core_limit": self.threads,
            "registers_per_core_limit": 2**16,
            "registers_per_block_limit": 2**16,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 2**16 - 1,
            "block_dim_limit_z": 2**16 - 1,
            "shared_memory_per_block": 48 * 2**10,
            "shared_memory_per_block_optin": self.shared_memory - 2**10,
            "shared_memory_per_core": self.shared_memory,
            "core_count": self.multiprocessors,
            "fpus_per_core": self.fpus,
            "l2_cache_size": self.l2_cache,
            "memory_bandwidth": int(memory_bandwidth(self.name) or 0),
            "clock_rate_ghz": self.clock,
            "device_memory_size": memory_bytes(self.name),
        }
        info = " ".join(f"{key}: {value}" for key, value in fields.items())
        major, minor = str(float(self.compute_capability)).split(".")
        return " ".join(
            (
                f"gpu_device_info {{ {info} cuda_compute_capability {{ major: {major} minor: {minor} }} }}",
                'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 }',
                f'device_description_str: "{self.name}"',
            )
        )


_GPUS = {
    "a100": _GPU("NVIDIA A100-SXM4-80GB", 8, 108, 64, 164 * 2**10, 40 * 2**20, 1.41),
    "h100": _GPU("NVIDIA H100 80GB HBM3", 9, 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
    "h200": _GPU("NVIDIA H200", 9, 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
    "rtx4090": _GPU("NVIDIA GeForce RTX 4090", 8.9, 128, 128, 100 * 2**10, 72 * 2**20, 2.52, 1536),
    "rtx4080": _GPU("NVIDIA GeForce RTX 4080", 8.9, 76, 128, 100 * 2**10, 64 * 2**20, 2.51, 1536),
    "rtx4060": _GPU("NVIDIA GeForce RTX 4060", 8.9, 24, 128, 100 * 2**10, 24 * 2**20, 2.46, 1536),
}


def topology_devices(name: str) -> list[jax.Device]:
    """Describe devices to make a mesh of and compile for; they need not exist.

    They hold no arrays: lower with `jax.ShapeDtypeStruct`s and shardings over a mesh (`AxisType.Auto`) of them. Their
    order is the slice's; `sharding` puts neighbours in a mesh on neighbouring chips.

    Args:
        name: a TPU slice such as "v5p:2x2x2", or GPUs of one machine such as "h100:8". For GPUs jax must not have been
            used yet in this process, or have found some.

    Raises:
        InputError: unknown devices, or the compiler for them is not installed.
    """
    kind, _, size = name.partition(":")
    counts = [int(count) for count in size.split("x")] if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size) else []
    try:
        if len(counts) == _RANKS.get(kind):
            return _tpus(name, counts)
        if kind in _GPUS and len(counts) == 1:
            return _gpus(_GPUS[kind], *counts)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"the compiler has no topology '{name}' ({error}); {_FORM}.") from None
    raise InputError(f"'{name}' is not a topology to compile for; {_FORM}.")


def _tpus(name: str, counts: list[int]) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f'compiling for {name} needs the TPU compiler; install it with pip install "mimicmotion_jax[tpu]".'
        )
    if "TPU_SKIP_MDS_QUERY" in os.environ:  # set by jax on machines without TPUs; with TPUs libtpu needs no help
        for variable, value in _LIBTPU_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
    # A host has 2 x 2 chips, and fewer in a slice that is narrower.
    per_host = [min(count, most) for count, most in zip((*counts, 1), (2, 2, 1), strict=False)]
    described = topologies.get_topology_desc(name, platform="tpu", chips_per_host_bounds=tuple(per_host))
    return list(described.devices)


def _gpus(gpu: _GPU, count: int) -> list[jax.Device]:
    # Without this jax's plugin fails on machines without an NVIDIA driver.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    try:
        described = topologies.get_topology_desc(
            gpu.name, platform="cuda", target_config=gpu.target_config(), topology=f"1x1x{count}"
        )
    except NotImplementedError:  # no plugin
        raise InputError(
            f'compiling for {gpu.name} needs jax with CUDA; install it with pip install "mimicmotion_jax[cuda]".'
        ) from None
    return list(described.devices)
