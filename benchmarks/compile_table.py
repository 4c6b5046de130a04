"""Table of memory, FLOPs and traffic per chip of the full model, from the compilers for TPUs and GPUs, without a chip.

    python benchmarks/compile_table.py              all missing rows; minutes to an hour each on two cores
    python benchmarks/compile_table.py --rows sample-v5e-1 train-v5p-8
    python benchmarks/compile_table.py --list

Each row is a run of `sample.py` or `train.py --compile-only`. Its report is written to
benchmarks/results/compiled/ROW.json and the table of all rows to benchmarks/results/compiled.md. FLOPs count a loop's
body once per iteration, and custom kernels as well, unlike the compilers' own count. Time cannot be measured without a
chip: for TPUs the table has the compiler's estimate of cycles, without custom kernels; for GPUs a lower bound in
seconds, each kernel at the card's peak FLOP/s or memory bandwidth, whichever takes longer. Both show where the time
goes and which of two ways is faster.
"""

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from mimicmotion_jax.runtime.atomic_files import write_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# The least effort: compiled soonest, to a slow program; enough to know whether it fits and what it computes.
QUICK = "JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1"
# Kernels that use less of a TPU's fast memory are shorter and compiled sooner (docs/training_pod.md).
SMALLER_KERNELS = (
    "LIBTPU_INIT_ARGS='--xla_tpu_scoped_vmem_limit_kib=8192"
    " --xla_tpu_enable_tpu_custom_call_scoped_vmem_adjustments=true'"
)

PAPER = ["train.py", "--config", "configs/train_paper.yaml"]
V5E_POD = ["--topology", "v5e:8x8", "mesh.fsdp=8", "mesh.frames=8"]
DISTILL = ["train.py", "--config", "configs/distill.yaml"]


def sample(chips: str, *options: str, windows: int = 1, window_size: int = 16, memory: str = "auto") -> list[str]:
    """Arguments for a video of full windows with guidance and 25 steps; the reference slot is in every window."""
    stride = window_size - 1 - 6  # the default overlap
    num_frames = window_size - 1 + (windows - 1) * stride
    model = [f"window_size={window_size}"] if window_size != 16 else []
    saving = [f"memory={memory}"] if memory != "auto" else []
    return ["sample.py", "--topology", chips, f"num_frames={num_frames}", *model, *saving, *options]


ROWS = {
    "sample-v5e-1": sample("v5e:1x1"),
    "sample-v5p-1": sample("v5p:1x1x1"),
    "sample-v6e-1": sample("v6e:1x1"),
    "sample-v5e-8-one-window": sample("v5e:2x4"),
    "sample-v5e-1-2-windows": sample("v5e:1x1", windows=2),
    "sample-v5e-1-32-windows": sample("v5e:1x1", windows=32),
    "sample-v5e-1-8-windows": sample("v5e:1x1", windows=8),
    "sample-v5e-8-8-windows": sample("v5e:2x4", windows=8),
    # The released 72-frame model.
    "sample-v5e-8-72-frames": sample("v5e:2x4", window_size=72),
    "sample-v5p-1-72-frames": sample("v5p:1x1x1", window_size=72),
    "sample-v5e-1-72-frames": sample("v5e:1x1", window_size=72),  # the branches of guidance in turn
    # Training as in the paper: clips of 16 frames, each on one or several chips.
    "train-v5e-64": [*PAPER, *V5E_POD],
    "train-v5e-64-smaller-kernels": [SMALLER_KERNELS, *PAPER, *V5E_POD],
    "train-v5e-16": [*PAPER, "--topology", "v5e:4x4", "mesh.fsdp=8", "mesh.frames=2"],
    "train-v6e-8": [*PAPER, "--topology", "v6e:2x4", "mesh.fsdp=8"],
    "train-v5p-8": [*PAPER, "--topology", "v5p:2x2x2", "mesh.fsdp=8"],
    "distill-v5p-8": [QUICK, *DISTILL, "--topology", "v5p:2x2x2", "mesh.fsdp=8"],
    "sample-a100-1": sample("a100:1"),
    "sample-h100-1": sample("h100:1"),
    "sample-h100-1-fast": sample("h100:1", "preset=fast"),
    "sample-h100-1-draft": sample("h100:1", "preset=draft"),
    "sample-h100-1-cache": sample("h100:1", "cache_interval=3"),
    "sample-h100-1-cache-finest": sample("h100:1", "cache_interval=3", "cache_depth=3"),
    "sample-h100-1-int8": sample("h100:1", "--quantize", "int8"),
    "sample-h100-1-2-windows": sample("h100:1", windows=2),
    "sample-h100-1-32-windows": sample("h100:1", windows=32),
    "sample-h100-8-8-windows": sample("h100:8", windows=8),
    "sample-h100-8-72-frames": sample("h100:8", window_size=72),
    # Cards that people have at home; one of 16 GB has the released 72-frame model in two ways.
    "sample-rtx4060-1": sample("rtx4060:1"),  # memory=auto: everything is saved
    "sample-rtx4060-1-int8": sample("rtx4060:1", "--quantize", "int8"),
    "sample-rtx4080-1-72-frames": sample("rtx4080:1", window_size=72),  # the branches of guidance in turn
    "sample-rtx4080-1-72-frames-low": sample(
        "rtx4080:1", window_size=72, memory="low"
    ),  # idle networks on the host too
    "sample-rtx4090-1-72-frames": sample("rtx4090:1", window_size=72),  # nothing is saved
    "sample-rtx4090-1-72-frames-low": sample("rtx4090:1", window_size=72, memory="low"),
    "train-h100-1": [*PAPER, "--topology", "h100:1", "mesh.fsdp=1", "batch_size=1"],
    # Adapters and PoseNet on a card with 24 GB.
    "train-lora-rtx4090-1": ["train.py", "--config", "configs/train_lora.yaml", "--topology", "rtx4090:1"],
    "train-h100-8": [*PAPER, "--topology", "h100:8", "mesh.fsdp=8"],
    "distill-h100-1": [*DISTILL, "--topology", "h100:1", "mesh.fsdp=1", "batch_size=1"],
    "distill-h100-8": [*DISTILL, "--topology", "h100:8", "mesh.fsdp=8"],
}
PROGRAMS = {"denoising": "denoising", "decoding": "decoding", "train_step": "training step", "encoding": "encoding"}


def make(name: str) -> dict[str, Any]:
    """Compile a row; return its report with the command and the date."""
    variables = [argument for argument in ROWS[name] if argument in (QUICK, SMALLER_KERNELS)]
    script, *options = ROWS[name][len(variables) :]
    command = [script, "--compile-only", *options]
    environment = os.environ | dict(shlex.split(variable)[0].split("=", maxsplit=1) for variable in variables)
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    date = datetime.date.today().isoformat()
    return {"command": " ".join([*variables, "python", *command]), "date": date, "report": json.loads(run.stdout)}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Format all rows as Markdown, one line per program."""
    head = (
        "",
        "program",
        "chips",
        "GB per chip",
        "of",
        "fits",
        "TFLOP per chip",
        "Gcycles",
        "least s",
        "GB moved",
        "made in",
    )
    lines = [head, ("---",) * len(head)]
    for name, row in rows.items():
        found = [(label, row["report"][key]) for key, label in PROGRAMS.items() if key in row["report"]]
        lines += [(name, label, *_cells(report)) for label, report in found]
    commands = [f"- {name}: `{row['command']}` ({row['date']})" for name, row in rows.items()]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"# The full model on TPUs and GPUs, by their compilers\n\n{text}\n\n" + "\n".join(commands) + "\n"


def _cells(report: dict[str, Any]) -> tuple[str | int, ...]:
    def scaled(value: float | None, unit: float, digits: int) -> str:
        return "" if value is None else f"{value / unit:.{digits}f}"

    return (
        report["chips"],
        scaled(report["memory_needed"], 1e9, 1),
        scaled(report["memory_limit"], 1e9, 1),
        "yes" if report["fits"] else "no",
        scaled(report["flops_per_chip"], 1e12, 1),
        scaled(sum(report["estimated_cycles"].values()) or None, 1e9, 1),
        scaled(sum(report["least_seconds"].values()) or None, 1, 2),
        scaled(report["collective_bytes"], 1e9, 1),
        f"{report['compile_seconds'] / 60:.0f} min",
    )


def main() -> None:
    """Compile missing rows and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW", help="compile these again")
    parser.add_argument("--list", action="store_true", help="show the rows and their commands")
    args = parser.parse_args()
    if args.list:
        for name, arguments in ROWS.items():
            print(name, " ".join(arguments))
        return
    folder = RESULTS / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.rows or [name for name in ROWS if not (folder / f"{name}.json").exists()]:
        print(name, file=sys.stderr, flush=True)
        write_file(folder / f"{name}.json", (json.dumps(make(name), indent=1) + "\n").encode())
        rows = {name: json.loads(path.read_text()) for name in ROWS if (path := folder / f"{name}.json").exists()}
        write_file(RESULTS / "compiled.md", table(rows).encode())
    print((RESULTS / "compiled.md").read_text())


if __name__ == "__main__":
    main()
