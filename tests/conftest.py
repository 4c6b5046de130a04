"""Fixtures shared by all tests: recorded official outputs and weights loaded from torch modules."""

import gc
import json
import os
import tempfile
from pathlib import Path

# Before jax starts: eight devices, so that the ordinary suite covers meshes; one thread per compilation, because the
# workers of pytest keep all cores busy. Half the effort of optimisation, because most programs run once or twice; those
# that are compared with PyTorch are optimised as users run them (`official.jit`).
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_backend_optimization_level=1",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)

# Programs compiled by one process are found by all others, and none of them in the user's own cache.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.TemporaryDirectory(prefix="mimicmotion-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# An installed TPU compiler must not make jax search for TPUs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The workers of pytest share the cores: threads of torch would wait for each other, actively, most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Imports make millions of objects of torch and jax, which stay: Python's collector is spared them (`gc.freeze` below).
gc.disable()

# Fixtures import torch and jax themselves: pytest's main process, which starts the workers, needs neither.
import chromium
import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def relative_error(ours: np.ndarray, expected) -> float:
    """Compute ||a - b|| / ||b|| in float64; `expected` is a NumPy array or a torch tensor."""
    a = np.asarray(ours, np.float64)
    b = np.asarray(expected.detach() if hasattr(expected, "detach") else expected, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture
def bucket() -> str:
    """URL of a folder in an empty object store."""
    from object_store import ObjectStore

    ObjectStore.store.clear()
    return "gs://bucket/videos"


@pytest.fixture(scope="session")
def load_torch():
    from official import from_torch

    return from_torch


@pytest.fixture(scope="session")
def error():
    return relative_error


@pytest.fixture(scope="session")
def random_weights():
    from official import randomise

    return randomise


@pytest.fixture(scope="session")
def tiny_pipeline():
    """A small pipeline with random weights on one device."""
    from tiny import TINY

    from mimicmotion_jax import MimicMotionPipeline, sharding

    return MimicMotionPipeline.random(TINY, dtype="float32", mesh=sharding.sampling_mesh(1))


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_pipeline, tmp_path_factory) -> Path:
    """Folder of that pipeline, to be read only."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tiny_pipeline.save_pretrained(folder)
    return folder


def pytest_report_header() -> str:
    """Say whether the browser's tests are part of the run."""
    return chromium.HEADER


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the browser's tests out where there is no browser, unless they are asked for."""
    if chromium.IS_INSTALLED or not collection_path.match("test_*browser.py"):
        return None
    asked = "browser" in (config.option.markexpr or "") or any("browser" in argument for argument in config.args)
    return None if asked else True


def pytest_collection_finish():
    """Leave what was imported out of all collections: they were a tenth of all time."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000)


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Start the folders whose files take longest, so that no worker waits for them at the end."""
    first = ("training", "pipeline", "cli", "tests")  # those of pipeline and cli share programs
    items.sort(key=lambda item: (*first, item.path.parent.name).index(item.path.parent.name))


class Golden:
    """Recorded outputs of the official pipeline."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = json.loads((folder / "settings.json").read_text())
        self.record = np.load(folder / "golden.npz")


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Recorded outputs of the official pipeline; without them the test is skipped."""
    folder = SHARED / "golden" / "official"
    if not folder.is_dir():
        pytest.skip("no recorded outputs in ../shared/golden")
    return Golden(folder)
