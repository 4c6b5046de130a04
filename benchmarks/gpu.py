"""Every question that needs a graphics card, answered by one command, most valuable first.

    python benchmarks/gpu.py                    all that is not finished, full size on a card, tiny on a CPU
    python benchmarks/gpu.py --minutes 10       what ten minutes are enough for; run it again to go on
    python benchmarks/gpu.py --only versus --again
    python benchmarks/gpu.py --list

Each experiment writes benchmarks/results/gpu/DEVICE/NAME.json after every row, in processes of its own: a crash, an
out-of-memory error or the end of the time loses nothing. Nothing is downloaded; what is not installed is said and left
out. docs/benchmarks.md describes the experiments and their files.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from card.runner import OURS, TORCH, VIDEO, Experiment, Part, main

TRAIN = (*VIDEO, "tensorflow_datasets", "grain", "array_record", "tensorboard")
PROFILE = Path(tempfile.gettempdir()) / "mimicmotion-profile"

HOST = (("JAX_PLATFORMS", "cpu"),)  # jax shall not reserve the memory of a card that PyTorch measures


def torch_part(function: str, name: str = "torch") -> Part:
    """PyTorch's side."""
    return Part(name, function, TORCH, HOST)


def our_part(function: str, name: str = "ours", needs: tuple[str, ...] = OURS) -> Part:
    """Our side."""
    return Part(name, function, needs)


def training_part(function: str) -> Part:
    """Training of a small model.

    Tuning Triton's products, and comparing the results of all kernels that are tried (level 4, the default), takes
    longer than minutes of training win from it. Command buffers stay, since a step consists of thousands of kernels
    whose launches take longer than they do; but they hide them from a profile.
    """
    flags = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=2"
    if "SMALL_MODEL_PROFILE" in os.environ:
        flags += " --xla_gpu_enable_command_buffer="
    return Part("train", function, OURS, (("XLA_FLAGS", flags),))


def profile_part(name: str) -> Part:
    """Profile of a part of the model. Command buffers hide the operations in them; cached programs are not dumped."""
    flags = f"--xla_dump_to={PROFILE} --xla_dump_hlo_as_text --xla_gpu_enable_command_buffer="
    environment = (("XLA_FLAGS", flags), ("JAX_ENABLE_COMPILATION_CACHE", "false"))
    return Part(name, f"profiling:{name}", OURS, environment)


EXPERIMENTS = (
    Experiment(
        "versus",
        "UNet, decoding and generation against PyTorch eager in float16",
        240,
        (torch_part("versus:torch_inference"), our_part("versus:our_inference", needs=TORCH)),
    ),
    Experiment(
        "versus-training",
        "forward and backward pass of one window against PyTorch eager in bfloat16",
        330,
        (torch_part("versus:torch_training"), our_part("versus:our_training", needs=TORCH)),
    ),
    Experiment(
        "gradients",
        "gradients: bfloat16 against float32, ours against PyTorch's",
        600,
        (
            torch_part("gradients:torch_bfloat16", "torch-bfloat16"),
            our_part("gradients:our_bfloat16", "ours-bfloat16", TORCH),
            torch_part("gradients:torch_float32", "torch-float32"),
            our_part("gradients:our_float32", "ours-float32", TORCH),
            Part("comparison", "gradients:comparison", ("numpy",)),
        ),
    ),
    Experiment(
        "single",
        "GEGLU and attention alone, in each way to compute them",
        120,
        (our_part("single:measure_single", "single"),),
    ),
    Experiment(
        "fp8",
        "the UNet's feed-forward products in float8 and with int8 kernels",
        60,
        (our_part("eight_bits:measure_eight_bits", "fp8"),),
    ),
    Experiment(
        "blocks",
        "each candidate for a layer and each option of the compiler, block by block",
        420,
        (our_part("kernels:measure_blocks", "blocks"),),
    ),
    Experiment(
        "step",
        "each candidate that gains in a block, and the best together, in the UNet's step",
        420,
        (our_part("kernels:measure_step", "step"),),
    ),
    Experiment(
        "sample",
        "sample.py with random weights of full size, cold and warm",
        240,
        (our_part("end_to_end:sample", "sample", VIDEO),),
    ),
    Experiment(
        "long-window",
        "one window of 72 frames with decoding: seconds and memory",
        300,
        (
            our_part("windows:long_window", "memory=auto"),
            our_part("windows:long_window_low", "memory=low"),
            our_part("windows:long_window_fast", "memory=fast"),
        ),
    ),
    Experiment(
        "train",
        "train.py with random weights of full size: its speed beside the bare step's, cold and warm",
        480,
        (our_part("end_to_end:train", "train", TRAIN),),
    ),
    Experiment(
        "windows",
        "2 and 8 windows by group_size; one window with the branches in turn",
        480,
        (
            our_part("windows:group_1", "group_size=1"),
            our_part("windows:group_2", "group_size=2"),
            our_part("windows:group_4", "group_size=4"),
            our_part("windows:one_window_low", "memory=low"),
        ),
    ),
    Experiment(
        "profile",
        "time by operation: the worst twenty with their names",
        300,
        (profile_part("unet"), profile_part("decode"), profile_part("training")),
    ),
    Experiment(
        "versus-compiled",
        "PyTorch under torch.compile, beside experiment versus",
        600,
        (torch_part("versus:torch_compiled"),),
    ),
    Experiment(
        "small-model",
        "a small model of the synthetic world from nothing, or further from the last run; see docs/benchmarks.md",
        540,
        (training_part("small_model:train"),),
    ),
    Experiment(
        "ablation",
        "the paper's table 2 on the synthetic world: five rows, three seeds; see docs/benchmarks.md",
        540,
        (training_part("ablation:train"),),
    ),
    Experiment(
        "hardware",
        "what the card can do: a large product, a copy, a convolution, attention",
        60,
        (our_part("kernels:measure_hardware", "hardware"),),
    ),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS, __doc__, "gpu"))
