"""What the tests share: recorded official outputs where they are at hand, weights loaded as the converter does."""

import json
import os
from pathlib import Path

# Before jax starts: eight devices, so that the ordinary suite covers meshes; and less optimisation, because most of the
# suite's time is compilation of programs that run once.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)

# A TPU compiler that happens to be installed is no reason to look for TPUs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.convert.engine import Expected, match, network_leaves, to_ours
from mimicmotion_jax.convert.torch_files import Entry
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter a value that shows, the ones initialised to constants included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(value / parameter[0].numel() ** 0.5)
            else:  # norms multiply by about one; biases and SVD's mixing factors are about zero
                parameter.copy_(0.2 * value + float(name.endswith(".weight")))
    return module.eval()


def from_torch(name: str, config: ModelConfig, state_dict: dict[str, torch.Tensor]) -> nnx.Module:
    """Our network `name` with the weights of a torch module, through the converter's tables and checks."""
    entries = [Entry(k, tuple(v.shape), str(v.dtype).removeprefix("torch."), None) for k, v in state_dict.items()]
    found = match(name, entries, [Expected(name, "", network_leaves(name, config))])[name]
    arrays = {path: to_ours(state_dict[entry.key], leaf, "float32") for path, (leaf, entry) in found.items()}
    graph, state = nnx.split(abstract_network(name, config))
    leaves = [(path, v.replace(jnp.asarray(arrays[".".join(map(str, path))]))) for path, v in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def relative_error(ours: np.ndarray, expected: np.ndarray | torch.Tensor) -> float:
    """||a - b|| / ||b|| in float64."""
    a = np.asarray(ours, np.float64)
    b = np.asarray(expected.detach() if isinstance(expected, torch.Tensor) else expected, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture(scope="session")
def load_torch():
    return from_torch


@pytest.fixture(scope="session")
def error():
    return relative_error


@pytest.fixture(scope="session")
def random_weights():
    return randomise


@pytest.fixture(scope="session")
def tiny_pipeline() -> MimicMotionPipeline:
    """A small pipeline with random weights on one device."""
    return MimicMotionPipeline.random(ModelConfig.tiny(), dtype="float32", mesh=sharding.sampling_mesh(1))


class Golden:
    """The folder of recorded outputs of the official pipeline."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = json.loads((folder / "settings.json").read_text())
        self.record = np.load(folder / "golden.npz")


@pytest.fixture(scope="session")
def golden() -> Golden | None:
    """None in a checkout that has no such folder beside it: tests then assert what can be asserted without."""
    folder = SHARED / "golden" / "official"
    return Golden(folder) if folder.is_dir() else None
