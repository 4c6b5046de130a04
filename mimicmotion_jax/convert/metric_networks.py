"""Reading the weights of the metric networks from the PyTorch files that their authors published."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from mimicmotion_jax.checkpoint import fill_network, flat_params
from mimicmotion_jax.convert.engine import Expected, Leaf, match, to_ours
from mimicmotion_jax.convert.tables import Table
from mimicmotion_jax.convert.torch_files import TensorFile, open_tensor_file
from mimicmotion_jax.metrics.i3d import I3D
from mimicmotion_jax.metrics.network import MetricNetwork, NetworkName
from mimicmotion_jax.metrics.perceptual import LPIPS
from mimicmotion_jax.metrics.resnet3d import ResNet3D
from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.runtime.errors import InputError

# Our axes of a kernel, as axes of the torch weight: [h, w, in, out] and [t, h, w, in, out].
_KERNEL_AXES = {4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
_STATISTICS = (r"\.(mean|var)$", r".running_\1")
_COUNTER = (r"^.*\.num_batches_tracked$", "num_batches_tracked")  # training steps; missing in older files
_ALEXNET_INDICES = (0, 3, 6, 8, 10)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Published weights of a network.

    Attributes:
        module: the network's class.
        table: names of its tensors.
        files: names of the files and where to get them, in order.
    """

    module: type[I3D] | type[ResNet3D] | type[LPIPS]
    table: Table
    files: tuple[str, ...]


_SOURCES: Mapping[NetworkName, _Source] = {
    "i3d": _Source(
        I3D,
        Table(renames=(_STATISTICS,), aliases=(_COUNTER,), ignored=frozenset({"num_batches_tracked"})),
        ("i3d_pretrained_400.pt, which the PyTorch FVD code of VideoGPT and DisCo's evaluation download",),
    ),
    "resnet3d": _Source(
        ResNet3D,
        Table(
            renames=(_STATISTICS,),
            aliases=((r"^module\.", ""), _COUNTER),
            ignored=frozenset({"num_batches_tracked", "fc.weight", "fc.bias"}),
        ),
        ("resnet-50-kinetics.pth, among the pretrained models of Hara's 3D-ResNets-PyTorch (2018)",),
    ),
    "lpips": _Source(
        LPIPS,
        Table(
            renames=(
                (r"^convs\.(\d)\.", lambda match: f"features.{_ALEXNET_INDICES[int(match[1])]}."),
                (r"^lins\.(\d)\.", r"lin\1.model.1."),
            ),
            ignored=frozenset(f"classifier.{layer}.{leaf}" for layer in (1, 4, 6) for leaf in ("weight", "bias")),
        ),
        (
            "torchvision's AlexNet, alexnet-owt-7be5be79.pth",
            "alex.pth, in the folder weights/v0.1 of the authors' lpips package (PerceptualSimilarity)",
        ),
    ),
}


def required_files(name: NetworkName) -> str:
    """Describe the weight files of a network: how many, their names and where to get them."""
    files = _SOURCES[name].files
    return f"{name} needs {len(files)} weight file(s): {'; and '.join(files)}."


def load_metric_network(name: NetworkName, *paths: str | Path) -> MetricNetwork:
    """Load a network from the files its authors published (`.pt`, `.pth`, `.bin` or `.safetensors`).

    Args:
        name: "i3d" (FVD), "resnet3d" (FID-VID) or "lpips".
        paths: one file; for "lpips" AlexNet's weights and LPIPS' own.

    Raises:
        InputError: a missing, damaged or dangerous file, tensors that are unknown, missing, mis-shaped or not finite,
            or no PyTorch to read it with.
    """
    source = _SOURCES[name]
    if len(paths) != len(source.files):
        raise InputError(required_files(name))
    files = []
    for path, origin in zip(paths, source.files, strict=True):
        file = Path(path).expanduser()
        if not file.is_file():
            raise InputError(f"there is no weight file {path} for {name}; get {origin}.")
        files.append(open_tensor_file(str(file), file))
        files[-1].verify()
    names = " and ".join(str(path) for path in paths)
    module = _load_module(source, f"{names} (given as {name})", files)
    return MetricNetwork(name, module, {file.path.name: sha256_file(file.path) for file in files})


def _load_module(source: _Source, name: str, files: list[TensorFile]) -> I3D | ResNet3D | LPIPS:
    abstract = nnx.eval_shape(lambda: source.module(rngs=nnx.Rngs(0)))
    leaves = []
    for path, leaf in flat_params(nnx.state(abstract)).items():
        rank = len(leaf.shape)
        axes = _KERNEL_AXES[rank] if path.endswith(".kernel") else tuple(range(rank))
        leaves.append(Leaf(path, tuple(leaf.shape), source.table.torch_key(path), axes))
    entries = list(itertools.chain.from_iterable(file.entries for file in files))
    found = match(name, entries, [Expected(name, "", leaves, source.table)])[name]
    tensors = {key: tensor for file in files for key, tensor in file.read(e.key for e in file.entries).items()}
    arrays = {path: jnp.asarray(to_ours(tensors[entry.key], leaf, "float32")) for path, (leaf, entry) in found.items()}
    return fill_network(abstract, arrays)
