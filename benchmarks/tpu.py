"""Every question that needs a TPU, answered by one command on a TPU VM, most valuable first.

    python benchmarks/tpu.py                        all that is not finished, full size on a TPU, tiny on a CPU
    python benchmarks/tpu.py --minutes 10           what ten minutes are enough for; run it again to go on
    python benchmarks/tpu.py --list
    python benchmarks/tpu.py --compile v5e:1x1      compile the blocks with all candidates, without a TPU

Like benchmarks/gpu.py, without PyTorch, which TPUs do not run: results are compared with our own float32. Writes
benchmarks/results/tpu/DEVICE/NAME.json; docs/benchmarks.md describes the experiments.
"""

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from card.runner import OURS, VIDEO, Experiment, Part, main

TRAIN = (*VIDEO, "tensorflow_datasets", "grain", "array_record", "tensorboard")
PROFILE = Path(tempfile.gettempdir()) / "mimicmotion-profile"


def part(function: str, name: str, needs: tuple[str, ...] = OURS) -> Part:
    """A process on the TPU."""
    return Part(name, function, needs)


def profile_part(name: str) -> Part:
    """Profile of a part of the model; cached programs are not dumped."""
    flags = f"--xla_dump_to={PROFILE} --xla_dump_hlo_as_text"
    environment = (("XLA_FLAGS", flags), ("JAX_ENABLE_COMPILATION_CACHE", "false"))
    return Part(name, f"profiling:{name}", OURS, environment)


EXPERIMENTS = (
    Experiment("speed", "UNet, decoding and generation on one chip", 900, (part("alone:inference", "ours"),)),
    Experiment(
        "long-window",
        "one window of 72 frames with decoding: seconds and memory",
        1800,
        (
            part("windows:long_window", "memory=auto"),
            part("windows:long_window_low", "memory=low"),
            part("windows:long_window_fast", "memory=fast"),
        ),
    ),
    Experiment(
        "blocks",
        "each candidate for a layer, block by block",
        1800,
        (part("kernels:measure_blocks", "blocks"),),
    ),
    Experiment(
        "gradients",
        "gradients in bfloat16 against float32",
        3600,
        (
            part("alone:gradients_bfloat16", "ours-bfloat16"),
            part("alone:gradients_float32", "ours-float32"),
            Part("comparison", "gradients:comparison", ("numpy",), (("JAX_PLATFORMS", "cpu"),)),
        ),
    ),
    Experiment(
        "sample",
        "sample.py with random weights of full size, cold and warm",
        1200,
        (part("end_to_end:sample", "sample", VIDEO),),
    ),
    Experiment("step", "each candidate for a layer, in the UNet's step", 3600, (part("kernels:measure_step", "step"),)),
    Experiment(
        "windows",
        "2 and 8 windows by group_size",
        1800,
        (
            part("windows:group_1", "group_size=1"),
            part("windows:group_2", "group_size=2"),
            part("windows:group_4", "group_size=4"),
        ),
    ),
    Experiment("training", "forward and backward pass of one window", 3600, (part("alone:training", "ours"),)),
    Experiment(
        "train",
        "train.py with random weights of full size: its speed beside the bare step's, cold and warm",
        7200,
        (part("end_to_end:train", "train", TRAIN),),
    ),
    Experiment(
        "profile",
        "time by operation: the worst twenty with their names",
        1800,
        (profile_part("unet"), profile_part("decode")),
    ),
    Experiment(
        "hardware",
        "what the chip can do: a large product, a copy, a convolution, attention",
        120,
        (part("kernels:measure_hardware", "hardware"),),
    ),
)

if __name__ == "__main__":
    if "--compile" in sys.argv:
        from card.alone import compile_for

        sys.exit(compile_for(*sys.argv[sys.argv.index("--compile") + 1 :]))
    sys.exit(main(EXPERIMENTS, __doc__, "tpu"))
