"""What chips can do, and TPU slices to compile for without having them."""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from mimicmotion_jax.errors import InputError

# Dense bf16 peak in FLOP/s and memory in bytes by the start of jax's `device_kind`; the first match holds, so longer
# names come first. From the makers' data sheets; TPU memory is what the compiler lets a program have of it.
_GIB = 2**30
_CHIPS: tuple[tuple[str, float, float], ...] = (
    ("TPU v4", 275e12, 32 * _GIB),
    ("TPU v5 lite", 197e12, 15.75 * _GIB),
    ("TPU v5e", 197e12, 15.75 * _GIB),
    ("TPU v5", 459e12, 95.73 * _GIB),
    ("TPU v6", 918e12, 31.24 * _GIB),
    ("NVIDIA A100-SXM4-40GB", 312e12, 40 * _GIB),
    ("NVIDIA A100-PCIE-40GB", 312e12, 40 * _GIB),
    ("NVIDIA A100", 312e12, 80 * _GIB),
    ("NVIDIA H100 PCIe", 756e12, 80 * _GIB),
    ("NVIDIA H100", 989e12, 80 * _GIB),
    ("NVIDIA H200", 989e12, 141e9),
    ("NVIDIA L40S", 362e12, 48 * _GIB),
    ("NVIDIA L4", 121e12, 24 * _GIB),
    ("NVIDIA GeForce RTX 4090", 165e12, 24 * _GIB),
    ("NVIDIA GeForce RTX 3090", 71e12, 24 * _GIB),
)

# Dimensions of a slice of each generation.
_TOPOLOGY_RANKS = {"v5e": 2, "v5p": 3, "v6e": 2}
_FORM = "write it as v5e:2x4, v5p:2x2x2 or v6e:4x4"

# libtpu reads these when it is loaded. It is to describe a slice, not to look for one on this machine: no search for
# neighbours, no lock that keeps a second process from compiling.
_LIBTPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOP/s of one chip, by jax's `device.device_kind`; None where it is not known (CPUs)."""
    chip = _find(device_kind)
    return chip and chip[1]


def memory_bytes(device_kind: str) -> int | None:
    """Memory of one chip in bytes, by jax's `device.device_kind`; None where it is not known (CPUs)."""
    chip = _find(device_kind)
    return chip and int(chip[2])


def topology_devices(name: str) -> list[jax.Device]:
    """The chips of a TPU slice, such as "v5p:2x2x2", to make a mesh of and compile for; the slice need not exist.

    They hold no arrays: lower with `jax.ShapeDtypeStruct`s and shardings over a mesh (`AxisType.Auto`) of them.
    The order is the slice's own; `jax.make_mesh(..., devices=...)` lays neighbours of the mesh on neighbours of it.

    Raises:
        InputError: no libtpu, or no such slice.
    """
    match = re.fullmatch(r"(v\w+):(\d+(?:x\d+)*)", name)
    rank = _TOPOLOGY_RANKS.get(match[1]) if match else None
    if rank is None or match[2].count("x") + 1 != rank or not math.prod(map(int, match[2].split("x"))):
        raise InputError(f"'{name}' is not a TPU topology; {_FORM}.")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f'compiling for {name} needs the TPU compiler; install it with pip install "mimicmotion_jax[tpu-compile]".'
        )
    if "TPU_SKIP_MDS_QUERY" in os.environ:  # jax sets it where there are no TPUs; where there are, libtpu knows more
        for variable, value in _LIBTPU_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
    try:
        return list(topologies.get_topology_desc(name, platform="tpu").devices)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"the TPU compiler has no topology '{name}' ({error}); {_FORM}.") from None


def _find(device_kind: str) -> tuple[str, float, float] | None:
    return next((chip for chip in _CHIPS if device_kind.startswith(chip[0])), None)
