"""The training loop, driven by a task that compiles in a second."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from toy import Toy, make_config

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import OptimizerConfig
from mimicmotion_jax.training.metrics import MetricLog
from mimicmotion_jax.training.state import abstract_state, learning_rate
from mimicmotion_jax.training.trainer import train


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def saved_steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())


def final_params(folder, config):
    with RunCheckpoints(folder / "checkpoints", 9) as checkpoints:
        toy = Toy(config)
        state, _ = checkpoints.restore(abstract_state(toy.shapes, config.optimizer, config.steps, toy.mesh))
    return np.asarray(state.params["toy.kernel"]), np.asarray(state.ema["toy.kernel"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of eight steps without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    toy = Toy(make_config(folder, "sample_every=4"))
    assert train(toy) is None
    return folder, toy


def test_damaged_lines_are_dropped_with_a_warning(tmp_path, caplog):
    """Lines such as a power cut or an editor leaves."""
    with MetricLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 2})
    path = tmp_path / "metrics.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    damaged = [b"\0" * 40 + b"\n", b'{"loss": 1}\n', b"[2]\n", b'{"step": "2"}\n', b"\xff\n"]
    path.write_bytes(b"".join([first, *damaged, second, third, b'{"step": 4, "lo']))
    with MetricLog(tmp_path, step=2):
        pass
    assert path.read_bytes() == first + second
    assert f"{path}: 5 damaged line(s) dropped" in caplog.text


def test_everything_happens_when_it_is_due(whole):
    folder, toy = whole
    assert toy.events == ["sample 4", "sample 8", "export"]
    lines = logged(folder)
    assert [line["step"] for line in lines] == [1, 3, 6, 8]
    assert lines[0].keys() == {"step", "loss", "grad_norm", "learning_rate"}  # no speed: the first step compiles
    for line in lines[1:]:
        assert line["samples_per_second"] == pytest.approx(4 * line["steps_per_second"])
        assert line["model_flops_utilisation"] == pytest.approx(line["steps_per_second"] / 1e9)
    assert saved_steps(folder) == [4, 8]


def test_losses_equal_numpy(whole):
    """AdamW with warm-up, clipping and averages as their papers define them, on the same batches."""
    folder, toy = whole
    options = toy.config.optimizer
    w = mean = square = np.zeros((128, 128))
    average, losses = w, []
    for n in range(8):
        x = np.random.default_rng(n).normal(size=(4, 128)).astype(np.float32).astype(np.float64)
        error = x @ w - 2 * x
        losses.append(np.mean(error**2))
        gradient = 2 * x.T @ error / error.size
        gradient *= min(1, options.clip_norm / np.linalg.norm(gradient))
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        step = mean / (1 - 0.9 ** (n + 1)) / (np.sqrt(square / (1 - 0.999 ** (n + 1))) + 1e-8)
        w = w - 0.1 * min(1, (n + 1) / 2) * (step + options.weight_decay * w)
        decay = min(0.9999, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose([line["loss"] for line in logged(folder)], np.take(losses, [0, 2, 5, 7]), rtol=1e-4)
    params, ema = final_params(folder, toy.config)
    np.testing.assert_allclose(params, w, atol=1e-3)
    np.testing.assert_allclose(ema, average, atol=1e-3)


@pytest.mark.parametrize("decay", ["none", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (4, 10), (10, 10), (20, 10)])
def test_learning_rate(decay, warmup, steps):
    schedule = learning_rate(OptimizerConfig(learning_rate=0.5, warmup_steps=warmup, decay=decay), steps)
    n = np.arange(steps)
    expected = 0.5 * np.minimum(1, (n + 1) / max(warmup, 1))
    if decay == "cosine":
        expected *= 0.5 * (1 + np.cos(np.pi * np.clip((n + 1 - warmup) / max(steps - warmup, 1), 0, 1)))
    np.testing.assert_allclose([schedule(jnp.int32(k)) for k in n], expected, rtol=1e-5, atol=1e-7)


def test_an_interrupted_run_is_saved_and_goes_on_to_the_same_bits(whole, tmp_path):
    config = make_config(tmp_path, "sample_every=4")
    interrupted = Toy(config, interrupted=5)
    assert train(interrupted) == signal.SIGTERM
    assert interrupted.events == ["sample 4"]
    assert saved_steps(tmp_path) == [4, 5]
    assert [line["step"] for line in logged(tmp_path)] == [1, 3]
    again = Toy(config)
    assert train(again) is None
    assert again.events == ["sample 8", "export"]
    assert [line["step"] for line in logged(tmp_path)] == [1, 3, 6, 8]
    for ours, theirs in zip(final_params(tmp_path, config), final_params(whole[0], config), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, free_port):
    """kill -9 while a checkpoint is being written or soon after; then to the end."""
    folder = tmp_path / "killed"
    command = [sys.executable, Path(__file__).with_name("toy.py"), folder, 10_000, f"localhost:{free_port()}", 1, 0]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / "checkpoints" / "2").exists():
        time.sleep(0.01)
    process.kill()
    errors = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, errors
    steps = saved_steps(folder)[-1] + 3
    configs = [make_config(path, f"steps={steps}") for path in (folder, tmp_path / "whole")]
    toys = [Toy(config) for config in configs]
    assert [train(toy) for toy in toys] == [None, None]
    assert toys[0].loader.batches == toys[1].loader.batches == steps
    for ours, theirs in zip(*(final_params(Path(config.output), config) for config in configs), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_signal_during_the_last_step_changes_nothing(tmp_path):
    toy = Toy(make_config(tmp_path), interrupted=8)
    assert train(toy) is None
    assert toy.events == ["export"]


def test_a_finished_run_is_only_exported(whole):
    again = Toy(whole[1].config)
    assert train(again) is None
    assert again.events == ["export"]


@pytest.mark.parametrize(("bad", "noticed"), [(6, 6), (7, 8), (8, 8)])
def test_a_step_that_is_not_finite_ends_the_run(tmp_path, bad, noticed):
    """At once where it is logged, otherwise one step later, when it is waited for; what is saved is finite."""
    toy = Toy(make_config(tmp_path), bad=bad)
    samples = f"samples {4 * (bad - 1)} to {4 * bad - 1}"
    with pytest.raises(InputError, match=rf"at step {bad} \(loss nan, {samples}\); the checkpoint of step 4 is good"):
        train(toy)
    assert toy.loader.batches == noticed
    assert saved_steps(tmp_path) == [4]
    assert np.isfinite(final_params(tmp_path, toy.config)).all()


def too_much(*args, **options):
    """Ask for four pebibytes of one device, for jax's own error."""
    return jnp.zeros(1 << 50).block_until_ready()


def test_lack_of_memory_in_a_step(tmp_path):
    toy = Toy(make_config(tmp_path, "save_every=1"))
    step = toy.step
    toy.step = lambda *args: step(*args) if toy.loader.batches < 3 else too_much()
    with pytest.raises(InputError, match=r"memory.*lower batch_size") as error:
        train(toy)
    assert "\n" not in str(error.value)
    assert saved_steps(tmp_path) == [1, 2]  # what was being written is complete


def test_lack_of_memory_at_the_start(tmp_path):
    toy = Toy(make_config(tmp_path))
    toy.load = too_much
    with pytest.raises(InputError, match=r"memory.*lower batch_size"):
        train(toy)


def test_a_checkpoint_that_does_not_fit_is_not_called_damaged(whole, monkeypatch):
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", too_much)
    with pytest.raises(InputError, match=r"memory.*lower batch_size"):
        train(Toy(whole[1].config))


def test_a_full_disk_is_noticed_before_the_start(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("mimicmotion_jax.runtime.atomic_files.shutil.disk_usage", lambda path: usage)
    toy = Toy(make_config(tmp_path))
    with pytest.raises(InputError, match=r"take [1-9][\d.]+ ?kB and there is room for [1-9]"):
        train(toy)
    assert toy.loader.batches == 0


def before_step_six(toy, change):
    """Have a run change something once its first checkpoint, of step 4, is complete."""
    step = toy.step

    def changed(*args):
        if toy.loader.batches == 6:
            while not (Path(toy.config.output) / "checkpoints" / "4").exists():
                time.sleep(0.02)
            change()
        return step(*args)

    toy.step = changed


def test_a_disk_that_has_filled_by_the_next_checkpoint(tmp_path, monkeypatch):
    toy = Toy(make_config(tmp_path))
    usage = type("Usage", (), {"free": 10_000})
    place = "mimicmotion_jax.runtime.atomic_files.shutil.disk_usage"
    before_step_six(toy, lambda: monkeypatch.setattr(place, lambda path: usage))
    with pytest.raises(
        InputError, match=r"^the parameters and optimizer state take [1-9][\d.]+ ?kB and there is room for 10"
    ) as error:
        train(toy)
    assert "could not be written" not in str(error.value)
    assert saved_steps(tmp_path) == [4]


def test_a_checkpoint_that_cannot_be_written_comes_with_the_advice_for_its_error(tmp_path):
    """A limit on the size of files, which tensorstore runs into in the background."""
    toy = Toy(make_config(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before_step_six(toy, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)))
    try:
        with pytest.raises(InputError, match=r"File too large; free some space.*goes on from .* step 4\.$") as error:
            train(toy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert saved_steps(tmp_path) == [4]


def test_the_second_of_two_runs_on_one_output_ends_at_once(tmp_path):
    config = make_config(tmp_path)
    first, second = Toy(config), Toy(config)
    errors, sample = [], first.step

    def step(*args):
        with pytest.raises(InputError, match="being written already") as error:
            train(second)
        errors.append(error)
        return sample(*args)

    first.step = step
    assert train(first) is None
    assert len(errors) == 8
    assert second.loader.batches == 0
    assert saved_steps(tmp_path) == [4, 8]


@pytest.mark.parametrize(
    ("sources", "key"), [({"checkpoint": None}, "checkpoint"), ({"checkpoint": "a" * 64, "encoders": "b"}, "encoders")]
)
def test_a_run_with_other_sources_is_not_continued(whole, sources, key):
    folder, toy = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = Toy(toy.config)
    other.sources = sources
    with pytest.raises(InputError, match=f"started with other values of {key}:"):
        train(other)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_averages_cannot_be_turned_off_on_resume(whole):
    config = make_config(whole[0], "optimizer.ema_decay=null")
    with pytest.raises(InputError, match=r"optimizer\.ema_decay"):
        train(Toy(config))


def test_what_else_changed_on_resume_is_noted(whole, tmp_path, caplog):
    """Options that steer the run may change in silence; those that change what is learned are named."""
    folder, _ = whole
    caplog.set_level("INFO", logger="mimicmotion_jax")
    assert train(Toy(make_config(folder, "keep=8", "save_every=2", "log_every=1", "data.num_workers=1"))) is None
    assert "note:" not in caplog.text
    changed = Toy(make_config(folder, "seed=3", "data.flip=true", "optimizer.weight_decay=0"))
    changed.loader.contents = "other videos"
    assert train(changed) is None
    (note,) = [record.getMessage() for record in caplog.records if "note:" in record.getMessage()]
    for key in ("seed", "data.flip", "optimizer.weight_decay", "data.dataset"):
        assert key in note
    assert "save_every" not in note
    for options, noted in ((["steps=7"], False), (["steps=7", "optimizer.decay=cosine"], True)):
        caplog.clear()
        assert train(Toy(make_config(folder, *options))) is None
        assert (
            "note: changed since this run was started: steps" in caplog.text
        ) == noted  # with a cosine they enter every step's learning rate


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, free_port):
    """Joined by gloo: Ctrl-C to one stops and saves both, with checksums of what both wrote; resumed, they end with the
    losses of one process."""
    output, environment = (
        tmp_path / "two",
        os.environ
        | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        },
    )

    def start(steps):
        command = [sys.executable, Path(__file__).with_name("toy.py"), output, steps, f"localhost:{free_port()}", 2]
        return [
            subprocess.Popen([*map(str, command), str(i)], env=environment, stderr=subprocess.PIPE, text=True)
            for i in range(2)
        ]

    processes = start(10_000)
    while all(process.poll() is None for process in processes) and not (output / "checkpoints" / "2").exists():
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGINT)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM, 128 + signal.SIGINT], errors
    newest = output / "checkpoints" / str(saved_steps(output)[-1])
    files = {path.relative_to(newest).as_posix() for path in newest.rglob("*") if path.is_file()}
    written = {name for name in files if "/" in name}  # orbax writes the time of the last commit beside them
    assert json.loads((newest / "checksums.json").read_text()).keys() == written
    steps = int(newest.name) + 2
    processes = start(steps)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors

    config = make_config(tmp_path / "one", f"steps={steps}", "log_every=1", "save_every=1000")
    assert train(Toy(config)) is None
    expected, found = logged(tmp_path / "one"), logged(output)
    assert [line["step"] for line in found] == [*range(1, steps + 1)]
    np.testing.assert_allclose(
        [line["loss"] for line in found], [line["loss"] for line in expected], rtol=1e-5, atol=1e-7
    )
