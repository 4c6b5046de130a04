"""Weight files in the published layouts with random weights, and the PyTorch modules they belong to."""

import dataclasses
from pathlib import Path

import pytest
import torch
from metric_modules import TorchI3D, TorchLPIPS, TorchResNet3D, fill

from mimicmotion_jax.convert.metric_networks import load_metric_network
from mimicmotion_jax.metrics import MetricNetwork


@dataclasses.dataclass(frozen=True)
class Published:
    """A PyTorch module, its weight files, and our network read from them."""

    module: torch.nn.Module
    paths: tuple[Path, ...]
    network: MetricNetwork


@pytest.fixture(scope="session")
def i3d(tmp_path_factory) -> Published:
    module = fill(TorchI3D(), seed=1)
    path = tmp_path_factory.mktemp("i3d") / "i3d_pretrained_400.pt"
    torch.save(module.state_dict(), path)
    return Published(module, (path,), load_metric_network("i3d", path))


@pytest.fixture(scope="session")
def resnet3d(tmp_path_factory) -> Published:
    """A training checkpoint as saved in 2017: no zip file, no batch counters, keys of a wrapped module."""
    module = fill(TorchResNet3D(), seed=2)
    path = tmp_path_factory.mktemp("resnet3d") / "resnet-50-kinetics.pth"
    state = {f"module.{k}": v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    checkpoint = {"epoch": 7, "arch": "resnet-50", "state_dict": state, "optimizer": optimizer}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    return Published(module, (path,), load_metric_network("resnet3d", path))


@pytest.fixture(scope="session")
def alex(tmp_path_factory) -> Published:
    module = fill(TorchLPIPS(), seed=3)
    folder = tmp_path_factory.mktemp("lpips")
    paths = (folder / "alexnet-owt-7be5be79.pth", folder / "alex.pth")
    torch.save(module.alexnet(), paths[0])
    torch.save(module.lins(), paths[1])
    return Published(module, paths, load_metric_network("lpips", *paths))
