"""Networks without parameters: names and shapes of the parameters, and networks built from given ones."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError

# With a context of one token these have no effect, and so no gradient (see models/transformer.py).
_WITHOUT_GRADIENT = re.compile(r"transformer_blocks\.\d+\.(norm2|attn2\.to_q|attn2\.to_k)\.")


class Template:
    """Networks without their parameters.

    Args:
        model: sizes.
        names: of the networks, keys of `models.build.NETWORKS`.
    """

    def __init__(self, model: ModelConfig, names: Iterable[str]):
        self._networks = {name: abstract_network(name, model) for name in names}
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


def flat_networks(networks: Mapping[str, nnx.Module]) -> dict[str, Any]:
    """Parameters of networks by dotted path, the network's name first: "unet.conv_in.kernel"."""
    states = {name: checkpoint.flat_params(nnx.state(network)) for name, network in networks.items()}
    return {f"{name}.{key}": value for name, params in states.items() for key, value in params.items()}


def split_trainable(keys: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split parameter names into those that a pattern is found in, which are trained, and the rest.

    Raises:
        InputError: a pattern that is not a regular expression or matches no parameter.
    """
    trained = set()
    for pattern in patterns:
        try:
            matching = {key for key in keys if re.search(pattern, key) and not _WITHOUT_GRADIENT.search(key)}
        except re.error as error:
            raise InputError(f"trainable: '{pattern}' is not a regular expression ({error}).") from None
        if not matching:
            raise InputError(f"trainable: no parameter matches '{pattern}'; names look like {keys[0]}.")
        trained |= matching
    return [key for key in keys if key in trained], [key for key in keys if key not in trained]
