"""The VAE's loss by PyTorch's formulas, and its initial parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mimicmotion_jax.training.autoencoder.initial import initial_params
from mimicmotion_jax.training.autoencoder.loss import (
    AutoencoderLossConfig,
    autoencoder_loss,
    gradient_error,
    kl_divergence,
)
from mimicmotion_jax.training.template import Template


def torch_gradient_error(error: np.ndarray, weights: np.ndarray) -> float:
    """The pyramid of differences, channels first."""
    e, w = (torch.from_numpy(x.reshape(-1, *x.shape[2:])).permute(0, 3, 1, 2) for x in (error, weights))
    terms = []
    for _ in range(3):
        down = (w[:, :, :-1] + w[:, :, 1:]) / 2 * (e[:, :, 1:] - e[:, :, :-1]).abs()
        across = (w[..., :-1] + w[..., 1:]) / 2 * (e[..., 1:] - e[..., :-1]).abs()
        terms.append(down.mean() + across.mean())
        e, w = F.avg_pool2d(e, 2), F.avg_pool2d(w, 2)
    return float(sum(terms) / 3)


def test_terms_equal_pytorch():
    random = np.random.default_rng(0)
    error = random.standard_normal((2, 3, 22, 16, 3)).astype(np.float32)  # 22 halves to 11 and then to 5
    weights = random.uniform(1, 4, (2, 3, 22, 16, 1)).astype(np.float32)
    ours = jax.jit(gradient_error)(error, weights)
    np.testing.assert_allclose(ours, torch_gradient_error(error, weights), rtol=1e-5)

    mean, logvar = random.standard_normal((2, 2, 5, 4)).astype(np.float32)
    normal = torch.distributions.Normal
    posterior = normal(torch.from_numpy(mean), torch.from_numpy(np.exp(logvar / 2)))
    expected = torch.distributions.kl_divergence(posterior, normal(0.0, 1.0)).mean()
    np.testing.assert_allclose(jax.jit(kl_divergence)(mean, logvar), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    random = np.random.default_rng(1)
    hand_mask = np.zeros((2, 2, 8, 8), bool)
    hand_mask[1, :, 2:4, 3:7] = True
    arrays = {
        "frames": random.integers(0, 256, (2, 2, 16, 16, 3), np.uint8),
        "hand_mask": hand_mask,
        "noise": random.standard_normal((2, 2, 8, 8, 4)).astype(np.float32),
    }
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def test_loss_equals_pytorch(make_vae_config, tmp_path, batch):
    """Given the VAE's own moments and frames; the network itself has its tests elsewhere."""
    model = make_vae_config(tmp_path).model(1.0)
    vae = Template(model, ["vae"]).networks(initial_params(model, 0))["vae"]
    options = AutoencoderLossConfig(hand_weight=3.0, squared_weight=2.0, gradient_weight=0.5, kl_weight=0.1)
    pixels = np.float32(batch["frames"]) / np.float32(127.5) - 1

    @jax.jit
    def ours(noise):
        mean, logvar = vae.encode(jnp.asarray(pixels.reshape(4, 16, 16, 3)))
        latents = (mean + jnp.sqrt(jnp.exp(logvar)) * noise.reshape(mean.shape)).reshape(noise.shape)
        return mean, logvar, vae.decode(latents), autoencoder_loss(vae, **batch, config=options)

    mean, logvar, decoded, (loss, parts) = jax.device_get(ours(batch["noise"]))
    error = decoded - pixels
    hands = np.kron(batch["hand_mask"], np.ones((1, 1, 2, 2), bool))[..., None]
    weights = np.where(hands, np.float32(3), np.float32(1))
    kl = 0.5 * np.mean(mean**2 + np.exp(logvar) - 1 - logvar)
    gradient = torch_gradient_error(error, weights)
    close = np.mean(weights * np.abs(error)) + 2 * np.mean(weights * error**2)
    np.testing.assert_allclose(loss, close + 0.5 * gradient + 0.1 * kl, rtol=1e-5)
    inside = np.broadcast_to(hands, error.shape)
    expected = {
        "l1_hands": np.abs(error[inside]).mean(),
        "l1_elsewhere": np.abs(error[~inside]).mean(),
        "gradient": gradient,
        "kl": kl,
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, err_msg=name)


def test_start_passes_pictures_through(make_vae_config, tmp_path):
    """Halving averages, doubling repeats, residual blocks of equal widths return what they get."""
    model = make_vae_config(tmp_path).model(1.0)
    vae = Template(model, ["vae"]).networks(initial_params(model, 0))["vae"]
    x = np.random.default_rng(2).standard_normal((2, 6, 8, 16)).astype(np.float32)
    call = jax.jit(lambda layer, x: layer(x))
    halved = call(vae.encoder.down_blocks[0].downsamplers[0], x)
    np.testing.assert_allclose(halved, x.reshape(2, 3, 2, 4, 2, 16).mean((2, 4)), atol=1e-6)
    doubled = call(vae.decoder.up_blocks[0].upsamplers[0], x)
    np.testing.assert_allclose(doubled, x.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)
    block = vae.decoder.up_blocks[0].resnets[0]
    np.testing.assert_allclose(call(block, x[None]), x[None], atol=1e-6)


def test_start_carries_colours(make_vae_config, tmp_path):
    """Latents are the blocks' mean colours, by three directions at right angles, and these alone are painted."""
    model = make_vae_config(tmp_path, "vae.block_out_channels=[32, 64]").model(1.0)
    vae = Template(model, ["vae"]).networks(initial_params(model, 0))["vae"]
    picture = np.random.default_rng(3).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    encode, decode = jax.jit(lambda x: vae.encode(x)[0]), jax.jit(lambda x: vae.decode(x[:, None])[0, 0])
    encoded = encode(picture)
    latents = np.asarray(encoded)[..., :3].reshape(-1, 3)
    blocks = picture.reshape(8, 2, 8, 2, 3).mean((1, 3)).reshape(-1, 3)
    directions = np.float32([[1, 1, 1], [1, -1, 0], [1, 1, -2]])
    for k, direction in enumerate(directions):
        assert np.corrcoef(latents[:, k], blocks @ direction)[0, 1] > 0.99
    painted = np.asarray(decode(encoded)).reshape(8, 2, 8, 2, 3)
    np.testing.assert_allclose(painted, np.broadcast_to(painted[:, :1, :, :1], painted.shape), atol=1e-5)
    for direction in directions:
        assert np.corrcoef(painted[:, 0, :, 0].reshape(-1, 3) @ direction, blocks @ direction)[0, 1] > 0.95
