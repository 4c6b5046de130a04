"""Experiments of `benchmarks/gpu.py` and `tpu.py` at the tiny size on a CPU, so that they work at once on a card."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from card import runner
from card.measuring import compare, keep, relative_difference
from card.results import Results, Skipped, finished

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GPU, TPU = load("gpu"), load("tpu")


def run(experiments, name, folder, *wanted):
    """Run parts of an experiment in this process, as their own processes would."""
    (experiment,) = (experiment for experiment in experiments if experiment.name == name)
    results = Results(folder / f"{name}.json")
    for part in experiment.parts:
        if not wanted or part.name in wanted:
            runner.run_part(part, results, "tiny")
    rows = {
        f"{part}/{row}": values for part, found in Results(results.path).parts.items() for row, values in found.items()
    }
    assert rows
    assert not {row: values for row, values in rows.items() if not finished(values)}
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("experiments", [GPU.EXPERIMENTS, TPU.EXPERIMENTS], ids=["gpu", "tpu"])
def test_every_part_names_a_function(experiments):
    names = [experiment.name for experiment in experiments]
    assert len(set(names)) == len(names)
    for part in (part for experiment in experiments for part in experiment.parts):
        module, _, function = part.function.partition(":")
        assert (
            f"def {function}(results: Results, part: str, size: str)"
            in (BENCHMARKS / "card" / f"{module}.py").read_text()
        )


@pytest.mark.slow
def test_ours_is_compared_with_pytorch(folder):
    rows = run(GPU.EXPERIMENTS, "versus", folder)
    for name in ("unet", "decode", "generation"):
        assert rows[f"ours/{name}"]["difference"] < 5e-5
        assert rows[f"ours/{name}"]["ratio"] == pytest.approx(
            rows[f"torch/{name}"]["median_s"] / rows[f"ours/{name}"]["median_s"], rel=1e-2
        )


@pytest.mark.slow
def test_gradients_are_compared_with_pytorch(folder):
    parts = ("torch-bfloat16", "torch-float32", "ours-float32", "comparison")  # ours in bfloat16: the slow test
    rows = run(GPU.EXPERIMENTS, "gradients", folder, *parts)
    pair = rows["comparison/ours-float32 against torch-float32"]
    assert pair["difference"] < 1e-4
    assert pair["compared"] > 50
    assert 1e-3 < rows["comparison/torch-bfloat16 against torch-float32"]["difference"] < 0.2


@pytest.mark.slow
def test_candidates_compute_the_same(folder):
    rows = run(GPU.EXPERIMENTS, "blocks", folder) | run(TPU.EXPERIMENTS, "hardware", folder)
    compared = {row: values["difference"] for row, values in rows.items() if "difference" in values}
    assert len(compared) > 15
    assert not {row: difference for row, difference in compared.items() if difference > 1e-5 and "biases" not in row}
    assert rows["hardware/product"]["TFLOP/s"] > 0
    # A row that is missing is compared with the present way in the same process, not with an earlier session's.
    results = Results(folder / "blocks.json")
    (name,) = (name for name in results.parts["blocks"] if "GEGLU as one product" in name)
    del results.parts["blocks"][name]
    results.write()
    again = run(GPU.EXPERIMENTS, "blocks", folder)
    assert again[f"blocks/{name}"]["difference"] < 1e-5
    assert again.keys() < rows.keys()


@pytest.mark.slow
def test_products_of_eight_bits_are_near_float32(folder):
    rows = run(GPU.EXPERIMENTS, "fp8", folder)
    errors = {name.rpartition(": ")[2]: row["error"] for name, row in rows.items()}
    assert errors["bfloat16"] < 1e-6  # float32 on a CPU
    # Three bits of mantissa round by 2^-4 at most; int8 by half of 1/127 of the channel's largest value.
    assert all(0.01 < error < 0.05 for way, error in errors.items() if way.startswith("float8"))
    assert 1e-3 < errors["int8 kernel"] < 0.015


@pytest.mark.slow
def test_a_long_window_is_generated(folder):
    rows = run(GPU.EXPERIMENTS, "long-window", folder, "memory=auto")
    assert rows["memory=auto/9 frames"]["frames"] == 9


def test_rows_survive_a_failure_and_are_not_measured_again(tmp_path):
    path = tmp_path / "x.json"
    results, measured = Results(path), []

    def fail():
        raise MemoryError("out of memory\nand more")

    def skip():
        raise Skipped("needs a package")

    results.row("ours", "good", lambda: measured.append(1) or {"ms": 1})
    results.row("ours", "bad", fail)
    results.row("ours", "other", skip)
    again = Results(path)
    assert again.parts["ours"]["bad"]["failed"] == "MemoryError: out of memory"
    assert again.parts["ours"]["other"]["skipped"] == "needs a package"
    again.row("ours", "good", lambda: measured.append(1) or {"ms": 2})
    again.row("ours", "bad", lambda: {"ms": 3})
    assert (len(measured), Results(path).parts["ours"]["bad"]["ms"]) == (1, 3)


def test_a_row_without_its_counterpart_is_measured_again(tmp_path):
    results = Results(tmp_path / "x.json")
    ones = np.ones(3, np.float32)
    results.row("ours", "unet", lambda: compare(results.array_path("torch", "unet"), out=ones))
    assert "torch-unet" in results.parts["ours"]["unet"]["missing"]
    keep(results.array_path("torch", "unet"), out=2 * ones)
    results.row("ours", "unet", lambda: compare(results.array_path("torch", "unet"), out=ones))
    assert results.parts["ours"]["unet"]["difference"] == 0.5


def test_kept_values_stand_for_the_whole(tmp_path):
    random = np.random.default_rng(0)
    a = random.standard_normal((600, 1000)).astype(np.float32)
    b = a + 0.01 * random.standard_normal(a.shape).astype(np.float32)
    keep(tmp_path / "a.npz", out=a)
    assert compare(tmp_path / "a.npz", out=b)["difference"] == pytest.approx(relative_difference(b, a), rel=0.02)


WORKERS = """
import sys, time
sys.path[:0] = [{benchmarks!r}]
from card import runner
{functions}
sys.modules["card.toy"] = sys.modules["__main__"]
parts = tuple(runner.Part(name, f"toy:{{name}}", needs) for name, needs in {parts!r})
sys.exit(runner.main([runner.Experiment("first", "Does it run?", {limit}, parts)], None, "gpu"))
"""
FUNCTIONS = """
def good(results, part, size):
    results.row(part, "row", lambda: {"ms": 1.0, "peak_GB": 2.5})
def crash(results, part, size):
    results.row(part, "before", lambda: {"ms": 2.0})
    import os; os.abort()
def hang(results, part, size):
    results.row(part, "before", lambda: {"ms": 3.0})
    time.sleep(600)
"""


def write_program(tmp_path, parts, limit):
    program = tmp_path / "program.py"
    program.write_text(WORKERS.format(benchmarks=str(BENCHMARKS), functions=FUNCTIONS, parts=parts, limit=limit))
    return program


def start(tmp_path, parts, *arguments, limit=100):
    program = write_program(tmp_path, parts, limit)
    output = tmp_path / "results"
    command = [sys.executable, str(program), "--tiny", "--output", str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done, json.loads((output / "first.json").read_text()) if (output / "first.json").exists() else None


def test_processes_that_crash_or_miss_a_package_end_nothing(tmp_path):
    done, found = start(tmp_path, [("missing", ("no_such_package",)), ("crash", ()), ("good", ())])
    assert done.returncode == 1, done.stderr
    states = {name: process["state"] for name, process in found["processes"].items()}
    assert states == {"missing": "skipped", "crash": "failed", "good": "done"}
    assert "no_such_package" in found["processes"]["missing"]["reason"]
    assert found["parts"]["crash"]["before"]["ms"] == 2.0
    assert found["state"] == "unfinished"
    memory = json.loads((tmp_path / "results" / "memory.json").read_text())
    assert memory["peaks"] == [{"peak_GB": 2.5, "experiment": "first", "part": "good", "row": "row"}]


@pytest.mark.slow
def test_a_process_that_hangs_is_ended(tmp_path):
    done, found = start(tmp_path, [("hang", ())], limit=24)
    assert done.returncode == 1, done.stderr
    assert found["processes"]["hang"]["state"] == "out of time"
    assert found["parts"]["hang"]["before"]["ms"] == 3.0
    assert found["state"] == "unfinished"


def test_a_stopped_run_leaves_no_process(tmp_path):
    """The part that hangs is ended with the process that started it, and its rows are kept."""
    program = write_program(tmp_path, [("hang", ())], limit=100)
    command = [sys.executable, str(program), "--tiny", "--output", str(tmp_path / "results")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while "before" not in process.stdout.readline():
        pass
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(program).encode() in read(path)]
    assert json.loads((tmp_path / "results" / "first.json").read_text())["parts"]["hang"]["before"]["ms"] == 3.0


def read(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_finished_experiments_are_skipped_and_time_is_kept(tmp_path):
    parts = [("good", ())]
    done, found = start(tmp_path, parts, "--minutes", "0.1")
    assert "no time left" in done.stdout
    assert found is None
    done, found = start(tmp_path, parts)
    assert (done.returncode, found["state"], found["size"]) == (0, "done", "tiny")
    assert {"device", "commit", "command", "versions"} <= found.keys()
    assert "done before" in start(tmp_path, parts)[0].stdout
    assert "done before" not in start(tmp_path, parts, "--again")[0].stdout
    assert "Does it run?" in start(tmp_path, parts, "--list")[0].stdout


@pytest.mark.slow
def test_blocks_compile_for_an_absent_tpu(tmp_path):
    """In a process of its own: it loads the TPU's compiler."""
    command = [sys.executable, str(BENCHMARKS / "tpu.py"), "--compile", "v5e:1x1", "tiny", "transformer"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {row["candidate"] for row in rows} >= {"present", "splash attention"}
    assert all(row["Mcycles"] > 0 and row["problem"] is None for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["gpu", "tpu"])
def test_the_whole_script(script, tmp_path):
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--tiny", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert {experiment.name for experiment in load(script).EXPERIMENTS} <= found.keys()
    unfinished = {name: content for name, content in found.items() if content.get("state", "done") != "done"}
    assert not unfinished, (done.stdout, done.stderr)
