"""Initial parameters of the VAE, with which it already reconstructs a blurred picture in its colours.

A network initialised at random mixes colours by a chain of random matrices; with few latent channels, training spent
them on outlines and never learned to tell red from green.
"""

import numpy as np
from flax import nnx
from jaxtyping import Float

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.build import random_network
from mimicmotion_jax.models.config import ModelConfig, VAEConfig

_INITIAL_LOGVAR = -4.0

# Lightness, red against green, yellow against blue: the rows are orthogonal, and the latter two are longer because
# pictures vary less in them.
_COLOURS = np.array([[1, 1, 1], [3, -3, 0], [1.5, 1.5, -3]], np.float32) / np.float32(np.sqrt(3))


def initial_params(model: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Initialise the VAE's layers at random, except for a path that carries the picture's colours.

    The path takes two channels of each layer for a colour, one for its negative: SiLU(x) - SiLU(-x) = x. The residual
    branches start at zero, the convolutions that halve and double pictures as average and identity, the noise on the
    latents is small, and the last convolution, over frames, starts as the identity. So the first latents are the mean
    colours of their pixels, and the decoder paints these.

    Args:
        model: sizes; of its VAE, widths below 6 carry fewer than three colours.
        seed: of the random part.

    Returns:
        Parameters by dotted path, from "vae." on, in the host's memory.
    """
    network = random_network("vae", model, np.random.default_rng(seed))
    params: dict[str, np.ndarray] = checkpoint.flat_params(nnx.state(network))
    for key, value in params.items():
        if key == "decoder.time_conv_out.kernel":
            params[key] = np.zeros_like(value)
            params[key][1] = np.eye(value.shape[-1])
        elif key.endswith(("conv2.kernel", "to_out.kernel")):
            params[key] = np.zeros_like(value)
        elif "samplers" in key and value.ndim == 4:
            params[key] = _identity_kernel(value.shape, average="downsamplers" in key)
    channels = model.vae.latent_channels
    params["quant_conv.kernel"][..., channels:] = 0
    params["quant_conv.bias"][channels:] = _INITIAL_LOGVAR
    params |= _colour_path(params, model.vae)
    return {f"vae.{key}": value for key, value in params.items()}


def _colour_path(params: dict[str, np.ndarray], config: VAEConfig) -> dict[str, np.ndarray]:
    """Change the kernels on the path; their other channels stay as they were."""
    colours = min(len(_COLOURS), config.in_channels, config.latent_channels, min(config.block_out_channels) // 2)
    both = np.kron(np.eye(colours, dtype=np.float32), np.array([[1, -1]], np.float32))  # [colours, 2 colours]
    to_colours, from_colours = _COLOURS[:colours].T, np.linalg.pinv(_COLOURS[:colours].T)
    path = {
        "encoder.conv_in": to_colours @ both,
        "encoder.conv_out": both.T,
        "quant_conv": np.eye(colours, dtype=np.float32),
        "decoder.conv_in": both,
        "decoder.conv_out": both.T @ from_colours,
    }
    shortcuts = [key.removesuffix(".kernel") for key in params if key.endswith("conv_shortcut.kernel")]
    path |= dict.fromkeys(shortcuts, np.eye(2 * colours, dtype=np.float32))
    return {f"{name}.kernel": _with_path(params[f"{name}.kernel"], taps) for name, taps in path.items()}


def _with_path(
    kernel: Float[np.ndarray, "k k cin cout"], taps: Float[np.ndarray, "a b"]
) -> Float[np.ndarray, "k k cin cout"]:
    """Make a kernel's first b outputs `taps` of its first a inputs at the same pixel, and nothing else."""
    centre = kernel.shape[0] // 2
    rows, columns = taps.shape
    kernel = kernel.copy()
    kernel[..., :columns] = 0
    kernel[centre, centre, :rows, :columns] = taps
    return kernel


def _identity_kernel(shape: tuple[int, ...], average: bool) -> Float[np.ndarray, "3 3 c c"]:
    """Kernel [3, 3, c, c] of the identity, or of the average over the 2 x 2 pixels that become one."""
    taps = np.zeros((3, 3, 1, 1), np.float32)
    if average:
        taps[:2, :2] = 0.25
    else:
        taps[1, 1] = 1
    return taps * np.eye(shape[2], dtype=np.float32)
