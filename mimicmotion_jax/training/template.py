"""Networks without parameters: names and shapes of the parameters, and networks built from given ones."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.lora import LowRank, attach_adapters, linear_layers
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import LoraConfig

# With a context of one token these have no effect, and so no gradient (see models/transformer.py).
_WITHOUT_GRADIENT = re.compile(r"transformer_blocks\.\d+\.(norm2|attn2\.to_q|attn2\.to_k)(\.|$)")
ADAPTER = re.compile(r"\.lora\.lora_[ab]$")
"""Names of the parameters of adapters."""


class Template:
    """Networks without their parameters.

    Args:
        model: sizes.
        names: of the networks, keys of `models.build.NETWORKS`.
        lora: adapters of the UNet; None or a rank of None: without.

    Raises:
        InputError: targets of adapters that are not regular expressions or match no layer.
    """

    def __init__(self, model: ModelConfig, names: Iterable[str], lora: LoraConfig | None = None):
        self._networks = {name: abstract_network(name, model) for name in names}
        self.adapted: tuple[str, ...] = ()
        """Layers of the UNet that have an adapter."""
        if lora is not None and lora.rank is not None:
            self.adapted = add_adapters(self._networks["unet"], lora)
        self.shapes = {key: tuple(x.shape) for key, x in flat_networks(self._networks).items()}
        """Shape of every parameter."""

    def networks(self, params: Mapping[str, jax.Array]) -> dict[str, Any]:
        """Build the networks, by name, from a value for every parameter."""
        return {
            name: checkpoint.fill_network(
                network, {key.removeprefix(f"{name}."): x for key, x in params.items() if key.startswith(f"{name}.")}
            )
            for name, network in self._networks.items()
        }


def add_adapters(unet: nnx.Module, config: LoraConfig) -> tuple[str, ...]:
    """Attach adapters without parameters to the layers that `config.targets` match; returns their names.

    Raises:
        InputError: a target that is not a regular expression or matches no layer that has a gradient.
    """
    assert config.rank is not None
    layers = linear_layers(unet)
    names = _select(list(layers), config.targets, "lora.targets", "layer")
    shapes = {
        name: ((layers[name].in_features, config.rank), (config.rank, layers[name].out_features)) for name in names
    }
    factors = {
        name: LowRank(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in pair)) for name, pair in shapes.items()
    }
    attach_adapters(unet, factors, config.alpha / config.rank)
    return tuple(names)


def init_adapters(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Initialise adapters as PEFT does: the first factor uniform in +-1 / sqrt(inputs), the second zero."""
    generator = np.random.default_rng(seed)
    return {
        key: (generator.uniform(-1, 1, shape) * shape[0] ** -0.5 if key.endswith("lora_a") else np.zeros(shape)).astype(
            np.float32
        )
        for key, shape in shapes.items()
    }


def flat_networks(networks: Mapping[str, nnx.Module]) -> dict[str, Any]:
    """Parameters of networks by dotted path, the network's name first: "unet.conv_in.kernel"."""
    states = {name: checkpoint.flat_params(nnx.state(network)) for name, network in networks.items()}
    return {f"{name}.{key}": value for name, params in states.items() for key, value in params.items()}


def split_trainable(keys: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split parameter names into those that a pattern is found in, which are trained as all adapters are, and the rest.

    Raises:
        InputError: a pattern that is not a regular expression, matches no parameter, or names frozen parameters of the
            base.
    """
    adapters = {key for key in keys if ADAPTER.search(key)}
    whole = _select([key for key in keys if key not in adapters], patterns, "trainable", "parameter")
    if adapters and (base := next((key for key in whole if key.startswith("unet.")), None)):
        raise InputError(
            f"trainable: {base} belongs to the UNet, of which lora.rank trains adapters alone; write "
            "trainable=['^pose_net'], or []."
        )
    trained = adapters | set(whole)
    return [key for key in keys if key in trained], [key for key in keys if key not in trained]


def _select(names: Sequence[str], patterns: Sequence[str], option: str, kind: str) -> list[str]:
    """Select the names that a pattern is found in."""
    found = set()
    for pattern in patterns:
        try:
            matching = {name for name in names if re.search(pattern, name) and not _WITHOUT_GRADIENT.search(name)}
        except re.error as error:
            raise InputError(f"{option}: '{pattern}' is not a regular expression ({error}).") from None
        if not matching:
            raise InputError(f"{option}: no {kind} matches '{pattern}'; names look like {names[0]}.")
        found |= matching
    return [name for name in names if name in found]
