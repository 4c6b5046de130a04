"""Peak FLOP/s, memory and bandwidth of chips, from their makers' data sheets."""

_GIB = 2**30
# Start of jax's `device_kind`, dense bf16 peak in FLOP/s, memory in bytes, and for GPUs memory bandwidth in bytes/s.
# The first match holds, so longer names come first. TPU memory is the part that the compiler lets a program use.
_CHIPS: tuple[tuple[str, float, float, float | None], ...] = (
    ("TPU v4", 275e12, 32 * _GIB, None),
    ("TPU v5 lite", 197e12, 15.75 * _GIB, None),
    ("TPU v5e", 197e12, 15.75 * _GIB, None),
    ("TPU v5", 459e12, 95.73 * _GIB, None),
    ("TPU v6", 918e12, 31.24 * _GIB, None),
    ("NVIDIA A100-SXM4-40GB", 312e12, 40 * _GIB, 1.555e12),
    ("NVIDIA A100-PCIE-40GB", 312e12, 40 * _GIB, 1.555e12),
    ("NVIDIA A100-PCIE-80GB", 312e12, 80 * _GIB, 1.935e12),
    ("NVIDIA A100", 312e12, 80 * _GIB, 2.039e12),
    ("NVIDIA H100 PCIe", 756e12, 80 * _GIB, 2.0e12),
    ("NVIDIA H100", 989e12, 80 * _GIB, 3.35e12),
    ("NVIDIA H200", 989e12, 141e9, 4.8e12),
    ("NVIDIA L40S", 362e12, 48 * _GIB, 0.864e12),
    ("NVIDIA L4", 121e12, 24 * _GIB, 0.3e12),
    ("NVIDIA GeForce RTX 4090", 165e12, 24 * _GIB, 1.008e12),
    ("NVIDIA GeForce RTX 4080", 97e12, 16 * _GIB, 0.717e12),
    ("NVIDIA GeForce RTX 4060 Ti", 44e12, 8 * _GIB, 0.288e12),
    ("NVIDIA GeForce RTX 4060", 30e12, 8 * _GIB, 0.272e12),
    ("NVIDIA GeForce RTX 3090", 71e12, 24 * _GIB, 0.936e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOP/s of one chip, by jax's `device.device_kind`; None if unknown (CPUs)."""
    chip = _find(device_kind)
    return chip and chip[1]


def memory_bytes(device_kind: str) -> int | None:
    """Memory of one chip in bytes, by jax's `device.device_kind`; None if unknown (CPUs)."""
    chip = _find(device_kind)
    return chip and int(chip[2])


def memory_bandwidth(device_kind: str) -> float | None:
    """Memory bandwidth of a GPU in bytes/s, by jax's `device.device_kind`; None if unknown.

    None for TPUs as well, whose compiler estimates the time of each operation.
    """
    chip = _find(device_kind)
    return chip and chip[3]


def _find(device_kind: str) -> tuple[str, float, float, float | None] | None:
    return next((chip for chip in _CHIPS if device_kind.startswith(chip[0])), None)
