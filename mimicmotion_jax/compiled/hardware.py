"""What chips can do, from their makers' data sheets."""

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

_BANDWIDTHS: tuple[tuple[str, float], ...] = (
    ("NVIDIA A100-SXM4-40GB", 1.555e12),
    ("NVIDIA A100-PCIE-40GB", 1.555e12),
    ("NVIDIA A100-PCIE-80GB", 1.935e12),
    ("NVIDIA A100", 2.039e12),
    ("NVIDIA H100 PCIe", 2.0e12),
    ("NVIDIA H100", 3.35e12),
    ("NVIDIA H200", 4.8e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOP/s of one chip, by jax's `device.device_kind`; None where it is not known (CPUs)."""
    chip = _find(device_kind)
    return chip and chip[1]


def memory_bytes(device_kind: str) -> int | None:
    """Memory of one chip in bytes, by jax's `device.device_kind`; None where it is not known (CPUs)."""
    chip = _find(device_kind)
    return chip and int(chip[2])


def memory_bandwidth(device_kind: str) -> float | None:
    """Bytes/s between a GPU and its memory, by jax's `device.device_kind`; None where it is not known.

    TPUs have none here: their compiler says what an operation takes.
    """
    return next((rate for start, rate in _BANDWIDTHS if device_kind.startswith(start)), None)


def _find(device_kind: str) -> tuple[str, float, float] | None:
    return next((chip for chip in _CHIPS if device_kind.startswith(chip[0])), None)
