"""Assignment of torch tensors to our parameters, one to one, and the change of layout in both directions."""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from mimicmotion_jax.checkpoint import flat_params
from mimicmotion_jax.convert.tables import TABLES, Table, unwrap_key
from mimicmotion_jax.convert.torch_files import Entry
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
NAMES_SHOWN = 20
NAMES_SHOWN_OF_ANOTHER = 3  # enough to recognise a network by

# Our axes of a kernel, as axes of the torch weight: linear [in, out], temporal convolution [3, in, out] (two axes of
# size 1 dropped), convolution [height, width, in, out].
_KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0, 3, 4), 4: (2, 3, 1, 0)}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter, here and in PyTorch.

    Attributes:
        path: our dotted path.
        shape: our shape.
        key: key in the network's torch state dict.
        axes: the torch tensor's axes in our order; our shape lacks axes of size 1 at the end.
    """

    path: str
    shape: tuple[int, ...]
    key: str
    axes: tuple[int, ...]

    @property
    def permuted_shape(self) -> tuple[int, ...]:
        """Shape of the torch tensor after its axes are permuted to our order."""
        return self.shape + (1,) * (len(self.axes) - len(self.shape))

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Shape of the torch tensor."""
        return tuple(self.permuted_shape[place] for place in np.argsort(self.axes))


@functools.lru_cache(maxsize=16)
def network_leaves(name: str, config: ModelConfig) -> tuple[Leaf, ...]:
    """List all leaves of the network `name` in path order; allocates no parameters."""
    table = TABLES[name]
    leaves = []
    for path, leaf in flat_params(nnx.state(abstract_network(name, config))).items():
        rank = len(leaf.shape)
        axes = _KERNEL_AXES[rank] if path.endswith(".kernel") else tuple(range(rank))
        leaves.append(Leaf(path, tuple(leaf.shape), table.torch_key(path), axes))
    return tuple(leaves)


@dataclasses.dataclass(frozen=True)
class Expected:
    """Required content of a source: a network's leaves under a prefix."""

    name: str
    prefix: str
    leaves: Sequence[Leaf]
    table: Table | None = None  # names; None takes the network's table in `TABLES`


# Leaf and tensor by network and our path.
Plan = dict[str, dict[str, tuple[Leaf, Entry]]]


def match(source: str, entries: Iterable[Entry], networks: Sequence[Expected]) -> Plan:
    """Assign every tensor of a source to a leaf, one to one; prefixes of training frameworks do not count.

    Args:
        source: name of the source, for the message.
        entries: all its tensors, of several files together.
        networks: required content, with distinct prefixes.

    Returns:
        every leaf with its tensor, by network and our path, in path order.

    Raises:
        InputError: naming the unmapped, missing, duplicate and mis-shaped keys.
    """
    wanted = {network.prefix + leaf.key: leaf for network in networks for leaf in network.leaves}
    found: dict[str, list[Entry]] = defaultdict(list)
    problems: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        key = _canonical(unwrap_key(entry.key), networks)
        if key in wanted:
            found[key].append(entry)
        elif key is not None:
            problems["unmapped"].append(entry.key)
    for key, leaf in wanted.items():
        if not found[key]:
            problems["missing"].append(key)
        elif len(found[key]) > 1:
            problems["duplicate"].append(" = ".join(dict.fromkeys(entry.key for entry in found[key])))
        elif (entry := found[key][0]).shape != leaf.torch_shape:
            problems["mis-shaped"].append(f"{key} is {entry.shape} instead of {leaf.torch_shape}")
        elif entry.dtype not in DTYPES:
            problems["of an unsupported type"].append(f"{key} is {entry.dtype}")
    if problems:
        raise InputError(_complaint(source, problems, len(wanted)))
    return {
        network.name: {leaf.path: (leaf, found[network.prefix + leaf.key][0]) for leaf in network.leaves}
        for network in networks
    }


def _canonical(key: str, networks: Sequence[Expected]) -> str | None:
    for network in networks:
        if key.startswith(network.prefix):
            table = network.table or TABLES[network.name]
            canonical = table.canonical(key.removeprefix(network.prefix))
            return None if canonical is None else network.prefix + canonical
    return key


def _complaint(source: str, problems: Mapping[str, list[str]], wanted: int) -> str:
    fitting = wanted - sum(len(problems[kind]) for kind in problems if kind != "unmapped")
    another = 2 * fitting < wanted
    shown = NAMES_SHOWN_OF_ANOTHER if another else NAMES_SHOWN
    parts = []
    for kind, names in problems.items():
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        parts.append(f"{len(names)} {kind} ({', '.join(names[:shown])}{more})")
    verdict = "holds another network than" if another else "does not fit"
    return (
        f"{source} {verdict} its configuration, {fitting} of {wanted} tensors fit: {'; '.join(parts)}; "
        "nothing was written, check that the files belong together."
    )


def to_ours(tensor: "torch.Tensor", leaf: Leaf, dtype: str | None) -> np.ndarray:
    """Convert a torch tensor to our layout, cast to `dtype` (None keeps its own).

    Raises:
        InputError: NaN or infinity, in the source or by the cast to float16.
    """
    import torch

    # Permuted before the cast: casts from float16 run several times slower over strided memory.
    moved = tensor.permute(leaf.axes).contiguous()
    moved = moved.to(getattr(torch, dtype or str(tensor.dtype).removeprefix("torch.")))
    if not torch.isfinite(moved).all():
        reason = "NaN or infinity in the file" if not torch.isfinite(tensor).all() else f"beyond the range of {dtype}"
        raise InputError(f"{leaf.key} has values that are not finite ({reason}); choose another file or --dtype.")
    if moved.dtype == torch.bfloat16:
        return moved.view(torch.uint16).numpy().view(ml_dtypes.bfloat16).reshape(leaf.shape)
    return moved.numpy().reshape(leaf.shape)


def to_torch(array: jax.Array, leaf: Leaf, dtype: str | None) -> "torch.Tensor":
    """Convert our array (on the CPU) to torch's layout, cast to `dtype` (None keeps its own).

    Raises:
        InputError: values beyond the range of float16.
    """
    import torch

    back = np.argsort(leaf.axes).tolist()
    moved = torch.from_dlpack(array).reshape(leaf.permuted_shape).permute(back).contiguous()
    moved = moved.to(getattr(torch, dtype or str(moved.dtype).removeprefix("torch.")))
    if not torch.isfinite(moved).all():
        raise InputError(f"{leaf.path} has values that are not finite in {moved.dtype}; choose another --dtype.")
    return moved
