"""The metric networks' weights: users point at the published files, and every tensor in them must have its place."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
from flax import nnx

from mimicmotion_jax.checkpoint import flat_params
from mimicmotion_jax.convert.engine import Expected, Leaf, match, to_ours
from mimicmotion_jax.convert.tables import Table
from mimicmotion_jax.convert.torch_files import PICKLES, PickleFile, TensorFile, open_tensor_file
from mimicmotion_jax.metrics.i3d import I3D
from mimicmotion_jax.metrics.perceptual import LPIPS
from mimicmotion_jax.metrics.resnet3d import ResNet3D
from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

NetworkName = Literal["i3d", "resnet3d", "lpips"]

# Our axes of a kernel, as axes of the torch weight: [h, w, in, out] and [t, h, w, in, out].
_KERNEL_AXES = {4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
_STATISTICS = (r"\.(mean|var)$", r".running_\1")
_COUNTER = (r"^.*\.num_batches_tracked$", "num_batches_tracked")  # of training steps, which older files lack
_ALEXNET_INDICES = (0, 3, 6, 8, 10)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where a network's weights come from.

    Attributes:
        module: the network's class.
        table: its names.
        files: what the files are called, and who publishes them, in order.
    """

    module: type[nnx.Module]
    table: Table
    files: tuple[str, ...]


_SOURCES: Mapping[str, _Source] = {
    "i3d": _Source(
        I3D,
        Table(renames=(_STATISTICS,), aliases=(_COUNTER,), ignored=frozenset({"num_batches_tracked"})),
        ("i3d_pretrained_400.pt, which the PyTorch FVD code of VideoGPT and DisCo's evaluation fetch",),
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


@dataclasses.dataclass(frozen=True, eq=False)
class MetricNetwork:
    """A network with its weights.

    Attributes:
        name: which one.
        module: the network, float32.
        sha256: of each weight file, by the file's name; to be shown beside every number it gave.
    """

    name: NetworkName
    module: I3D | ResNet3D | LPIPS
    sha256: Mapping[str, str]


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
        raise InputError(f"{name} needs {len(source.files)} weight file(s): {'; and '.join(source.files)}.")
    files = []
    for path, origin in zip(paths, source.files, strict=True):
        file = Path(path).expanduser()
        if not file.is_file():
            raise InputError(f"there is no weight file {path} for {name}; get {origin}.")
        files.append(_open(file))
        files[-1].verify()
    names = " and ".join(str(path) for path in paths)
    module = _fill(source, f"{names} (given as {name})", files)
    return MetricNetwork(name, module, {file.path.name: sha256_file(file.path) for file in files})


def _fill(source: _Source, name: str, files: list[TensorFile]) -> nnx.Module:
    graph, abstract = nnx.split(nnx.eval_shape(lambda: source.module(rngs=nnx.Rngs(0))))
    leaves = []
    for path, leaf in flat_params(abstract).items():
        rank = len(leaf.shape)
        axes = _KERNEL_AXES[rank] if path.endswith(".kernel") else tuple(range(rank))
        leaves.append(Leaf(path, tuple(leaf.shape), source.table.torch_key(path), axes))
    entries = list(itertools.chain.from_iterable(file.entries for file in files))
    found = match(name, entries, [_Network(name, "", leaves, source.table)])[name]
    tensors = {key: tensor for file in files for key, tensor in file.read(e.key for e in file.entries).items()}
    arrays = {path: jnp.asarray(to_ours(tensors[entry.key], leaf, "float32")) for path, (leaf, entry) in found.items()}
    filled = [(path, v.replace(arrays[".".join(map(str, path))])) for path, v in nnx.to_flat_state(abstract)]
    return nnx.merge(graph, nnx.from_flat_state(filled))


@dataclasses.dataclass(frozen=True)
class _Network(Expected):
    """What the converter's engine must find, by a table of our own."""

    names: Table

    @property
    def table(self) -> Table:
        """The network's table of names."""
        return self.names


class _CheckpointFile(PickleFile):
    """A pickle whose state dict may lie under "state_dict", beside the epoch and the optimizer's state."""

    def _load(self) -> Mapping[str, "torch.Tensor"]:
        content = super()._load()
        return content.get("state_dict", content) if isinstance(content, dict) else content


def _open(path: Path) -> TensorFile:
    if path.suffix not in PICKLES:
        return open_tensor_file(str(path), path)
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError('reading PyTorch files needs torch: pip install "mimicmotion_jax[torch]".') from None
    return _CheckpointFile(str(path), path)
