"""The loop that every training shares, driven by a training that only counts."""

import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.metrics import MetricLog
from mimicmotion_jax.training.state import TrainState
from mimicmotion_jax.training.stepping import Plan, run_steps


class Counting:
    """Its loss is the step's number; it notes what it is told to do."""

    def __init__(self, folder, first=0, bad=None, interrupted=None):
        self.checkpoints = RunCheckpoints(folder / "checkpoints", keep=9)
        self.step, self.bad, self.interrupted, self.events = first, bad, interrupted, []

    def advance(self):
        self.step += 1
        if self.step == self.interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
        finite = self.step != self.bad
        return {"loss": jnp.float32(self.step if finite else np.nan), "finite": jnp.float32(finite)}

    def save(self):
        self.events.append(f"save {self.step}")
        self.checkpoints.save(TrainState(jnp.int32(self.step), {}, (), {}), {}, {})

    def sample(self, step):
        self.events.append(f"sample {step}")

    def export(self):
        self.events.append("export")


def run(training, folder, first=0, **intervals):
    plan = Plan(first=first, steps=8, batch_size=5, **({"log_every": 3, "save_every": 4} | intervals))
    try:
        return run_steps(training, plan, folder, progress=False)
    finally:
        training.checkpoints.close()


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_damaged_lines_are_dropped_with_a_word(tmp_path, caplog):
    """As a power cut and an editor leave them."""
    log = MetricLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"loss": step / 2})
    log.close()
    path = tmp_path / "metrics.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    damaged = [b"\0" * 40 + b"\n", b'{"loss": 1}\n', b"[2]\n", b'{"step": "2"}\n', b"\xff\n"]
    path.write_bytes(b"".join([first, *damaged, second, third, b'{"step": 4, "lo']))
    MetricLog(tmp_path, step=2).close()
    assert path.read_bytes() == first + second
    assert f"{path}: 5 damaged line(s) dropped" in caplog.text


def test_everything_happens_when_it_is_due(tmp_path):
    training = Counting(tmp_path)
    assert run(training, tmp_path, sample_every=4, peak_speed=1e9) is None
    assert training.events == ["save 4", "sample 4", "save 8", "sample 8", "save 8", "export"]
    lines = logged(tmp_path)
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1), (3, 3), (6, 6), (8, 8)]
    assert lines[0].keys() == {"step", "loss"}  # the first step compiles
    for line in lines[1:]:
        assert line["samples_per_second"] == pytest.approx(5 * line["steps_per_second"])
        assert line["model_flops_utilisation"] == pytest.approx(line["steps_per_second"] / 1e9)
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 8]


def test_an_interrupted_run_is_saved_and_goes_on(tmp_path):
    training = Counting(tmp_path, interrupted=5)
    assert run(training, tmp_path) == signal.SIGTERM
    assert training.events == ["save 4", "save 5", "save 5"]
    assert [line["step"] for line in logged(tmp_path)] == [1, 3]
    again = Counting(tmp_path, first=5)
    assert run(again, tmp_path, first=5) is None
    assert again.events == ["save 8", "save 8", "export"]
    assert [line["step"] for line in logged(tmp_path)] == [1, 3, 6, 8]


def test_a_signal_during_the_last_step_changes_nothing(tmp_path):
    training = Counting(tmp_path, interrupted=8)
    assert run(training, tmp_path) is None
    assert training.events[-1] == "export"


@pytest.mark.parametrize(("bad", "noticed"), [(6, 6), (7, 8), (8, 8)])
def test_no_step_that_is_not_finite_goes_unnoticed(tmp_path, bad, noticed):
    """Where it is logged, at once; elsewhere one step later, when it is waited for."""
    training = Counting(tmp_path, bad=bad)
    samples = f"samples {5 * (bad - 1)} to {5 * bad - 1}"
    with pytest.raises(InputError, match=rf"at step {bad} \(loss nan, {samples}\); the checkpoint of step 4 is good"):
        run(training, tmp_path)
    assert training.step == noticed
    assert training.events == ["save 4"]


def test_nothing_is_left_to_do(tmp_path):
    training = Counting(tmp_path, first=8)
    assert run(training, tmp_path, first=8) is None
    assert training.events == ["save 8", "export"]
