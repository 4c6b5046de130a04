"""Run `mimicmotion sample` or `train` in this process and print its seconds and peak memory as JSON.

    python benchmarks/card/command.py sample --checkpoint DIR ...
    python benchmarks/card/command.py train data.dataset=DIR ...

A training run writes neither checkpoints nor the model, which take minutes at full size and are not measured here; its
bare step is timed afterwards.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from card.measuring import jax_peak
from card.results import Row


def sample(arguments: list[str]) -> Row:
    """Generate a video."""
    from mimicmotion_jax.cli import sample

    return {"code": sample.main(arguments)}


def train(arguments: list[str]) -> Row:
    """Train, then repeat the bare step on the last batch."""
    import jax

    from mimicmotion_jax.cli import train
    from mimicmotion_jax.training import trainer
    from mimicmotion_jax.training.tasks.diffusion import Diffusion

    last: list = []
    step = Diffusion.step

    def remember(task: Diffusion, state: object, batch: object) -> object:
        out = step(task, state, batch)
        last[:] = [task, out[0], batch]
        return out

    with (
        mock.patch.object(trainer, "save"),
        mock.patch.object(Diffusion, "export", return_value="nothing"),
        mock.patch.object(Diffusion, "step", remember),
    ):
        code = train.main(arguments)
    task, state, batch = last
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        state, metrics = step(task, state, batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    lines = (Path(task.config.output) / "metrics.jsonl").read_text().splitlines()
    trainers, bare = json.loads(lines[-1])["steps_per_second"], 1 / statistics.median(seconds)
    speed = {"trainer_steps_per_s": trainers, "bare_steps_per_s": bare, "part_of_bare": trainers / bare}
    return {"code": code} | {name: float(f"{value:.4g}") for name, value in speed.items()}


if __name__ == "__main__":
    begin = time.perf_counter()
    found = {"sample": sample, "train": train}[sys.argv[1]](sys.argv[2:])
    print(json.dumps(found | {"inside_s": round(time.perf_counter() - begin, 2)} | jax_peak()))
