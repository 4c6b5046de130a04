"""The objective against autograd of PyTorch networks under the original EDM loss; what is drawn, against statistics."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from flax import nnx
from scipy import stats

from mimicmotion_jax.checkpoint import flat_params
from mimicmotion_jax.diffusion.edm import velocity
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.training.objective import (
    Draws,
    Encoded,
    Networks,
    ObjectiveConfig,
    draw,
    draw_noise_aug,
    objective,
    sample_keys,
)

# Several channels in each group of a norm: one alone would undo every bias before it, and leave it without gradient.
UNET_WIDTH, CONTEXT = 64, 16
BATCH, FRAMES, HEIGHT, WIDTH, LATENT = 4, 3, 4, 6, 4
# Keys of attention to a single token do not matter, whatever asks (models/transformer.py).
WITHOUT_GRADIENT = ("transformer_blocks.0.norm2.", "attn2.to_q.", "attn2.to_k.")

SIZES = {
    "one resolution": {
        "down_block_types": ("DownBlockSpatioTemporal",),
        "up_block_types": ("UpBlockSpatioTemporal",),
        "block_out_channels": (UNET_WIDTH,),
        "num_attention_heads": (2,),
    },
    "two resolutions": {
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        "block_out_channels": (UNET_WIDTH, 96),
        "num_attention_heads": (2, 3),
    },
}

# What is kept, one row a sample: embedding, reference, poses.
EVERY_DROPOUT = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
POSES_KEPT = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 1]], bool)

# Compiled for one or two runs: most of this file's time would go into optimisation.
compile_fast = functools.partial(jax.jit, static_argnums=(3, 4), compiler_options={"xla_backend_optimization_level": 0})


class PoseNet(torch.nn.Module):
    """The paper's appendix B, table 3, and the release's scale."""

    def __init__(self):
        super().__init__()
        widths, layers = (3, 3, 16, 16, 32, 32, 64, 64, 128), []
        for cin, cout, stride in zip(widths, widths[1:], (1, 2, 1, 2, 1, 2, 1, 1), strict=False):
            layers += [torch.nn.Conv2d(cin, cout, 2 + stride, stride, padding=1), torch.nn.SiLU()]
        self.conv_layers = torch.nn.Sequential(*layers)
        self.final_proj = torch.nn.Conv2d(128, UNET_WIDTH, 1)
        self.scale = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, pixels):
        return self.scale * self.final_proj(self.conv_layers(pixels))


class Reference:
    """UNet and PoseNet in PyTorch, and the loss as Karras et al. define it, in float64."""

    def __init__(self, random_weights, **sizes: tuple):
        unet = UNetSpatioTemporalConditionModel(
            **sizes,
            layers_per_block=1,
            cross_attention_dim=CONTEXT,
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96,
        )
        self.config = ModelConfig(
            unet=UNetConfig.from_official(dict(unet.config)),
            image_encoder=CLIPConfig(projection_dim=CONTEXT),
            pose_net=PoseNetConfig(out_channels=UNET_WIDTH),
        )
        self.modules = {"unet": random_weights(unet, 0).double(), "pose_net": random_weights(PoseNet(), 1).double()}
        self.modules["pose_net"].scale.data.fill_(1.7)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        return {name: {k: v.float() for k, v in net.state_dict().items()} for name, net in self.modules.items()}

    def gradients(self) -> dict[str, dict[str, torch.Tensor]]:
        return {name: {k: p.grad.float() for k, p in net.named_parameters()} for name, net in self.modules.items()}

    def loss(self, batch: Encoded, draws: Draws, config: ObjectiveConfig) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean of w lambda |D - x0|^2, one sample after the other; and the sums that are reported, unweighted."""
        losses, sums = [], dict.fromkeys(("hand_error", "hand_count", "other_error", "other_count"), 0.0)
        for i in range(BATCH):
            clean, noise, image = (
                channels_first(x[i]) for x in (batch.latents, draws.noise, batch.image_latents[:, None])
            )
            sigma = float(draws.sigma[i])
            x = clean + sigma * noise
            c_skip, c_out = 1 / (sigma**2 + 1), -sigma / math.sqrt(sigma**2 + 1)
            c_in, c_noise = 1 / math.sqrt(sigma**2 + 1), math.log(sigma) / 4
            context = torch.tensor(np.asarray(batch.context[i])).double()[None, None]
            ids = torch.tensor([[config.fps - 1, config.motion_bucket_id, float(draws.noise_aug[i])]]).double()
            if not draws.keep_context[i]:
                context = torch.zeros_like(context)
            if not draws.keep_image[i]:
                image = torch.zeros_like(image)
            poses = channels_first(batch.poses[i]) / 127.5 - 1 if draws.keep_pose[i] else None
            f = self.network(torch.cat([c_in * x, image.expand_as(x)], 1), c_noise, context, ids, poses)
            denoised = c_skip * x + c_out * f
            error = (1 + sigma**2) / sigma**2 * (denoised - clean) ** 2  # [F, c, h, w]
            hands = torch.tensor(np.asarray(batch.hand_mask[i]))[:, None].expand_as(error)
            losses.append((torch.where(hands, config.hand_weight, 1.0) * error).mean())
            for name, where in (("hand", hands), ("other", ~hands)):
                sums[f"{name}_error"] += error[where].sum().item() / LATENT
                sums[f"{name}_count"] += where.sum().item() / LATENT
        return sum(losses) / BATCH, sums

    def network(self, sample, c_noise, context, ids, poses):
        """F of one sample; without poses nothing is added behind the first convolution."""
        unet, pose_net = self.modules["unet"], self.modules["pose_net"]
        hook = unet.conv_in.register_forward_hook(lambda _, __, out: out if poses is None else out + pose_net(poses))
        out = unet(sample[None], torch.tensor(c_noise), context, added_time_ids=ids).sample[0]
        hook.remove()
        return out


def channels_first(frames: jax.Array) -> torch.Tensor:
    """[F, h, w, c] to [F, c, h, w], float64."""
    return torch.tensor(np.moveaxis(np.asarray(frames), -1, 1)).double()


@pytest.fixture(scope="module")
def references(random_weights):
    """A function from a name in `SIZES` to the reference."""
    return functools.cache(lambda sizes: Reference(random_weights, **SIZES[sizes]))


def in_jax(load_torch, reference: Reference, arrays: dict[str, dict[str, torch.Tensor]]) -> Networks:
    """Our networks, filled with anything that has the names and shapes of the torch parameters."""
    return Networks(**{name: load_torch(name, reference.config, arrays[name]) for name in ("unet", "pose_net")})


def random_batch(keep: np.ndarray) -> tuple[Encoded, Draws]:
    rng = np.random.default_rng(1)
    shape = (BATCH, FRAMES, HEIGHT, WIDTH, LATENT)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    batch = Encoded(
        index=jnp.arange(BATCH, dtype=jnp.uint32),
        latents=normal(*shape),
        image_latents=5 * normal(BATCH, HEIGHT, WIDTH, LATENT),
        context=normal(BATCH, CONTEXT),
        poses=jnp.asarray(rng.integers(0, 256, (BATCH, FRAMES, 8 * HEIGHT, 8 * WIDTH, 3)), jnp.uint8),
        hand_mask=jnp.asarray(rng.random(shape[:-1]) < 0.2),
    )
    draws = Draws(
        sigma=jnp.array([0.03, 0.8, 3.0, 60.0]),
        noise=normal(*shape),
        keep_context=jnp.asarray(keep[:, 0]),
        keep_image=jnp.asarray(keep[:, 1]),
        keep_pose=jnp.asarray(keep[:, 2]),
        noise_aug=jnp.array([0.02, 0.5, 0.0, 2.0]),
    )
    return batch, draws


def by_path(networks: Networks) -> dict[str, np.ndarray]:
    return {
        f"{name}.{path}": np.asarray(x)
        for name, net in networks._asdict().items()
        for path, x in flat_params(nnx.state(net)).items()
    }


@compile_fast
def run(networks, batch, draws, config, execution):
    with jax.default_matmul_precision("highest"):
        return jax.value_and_grad(objective, has_aux=True)(networks, batch, draws, config, execution)


def as_floats(sums) -> dict[str, float]:
    return {name: float(value) for name, value in sums.items()}


OTHER = ObjectiveConfig(hand_weight=3, fps=25, motion_bucket_id=40)


@pytest.mark.parametrize(
    ("keep", "hands"),
    [
        pytest.param(EVERY_DROPOUT, True, id="every drop-out"),
        pytest.param(POSES_KEPT, False, id="poses kept, no hands"),
    ],
)
@pytest.mark.parametrize(
    ("sizes", "config"),
    [
        ("one resolution", OTHER),
        # `models/test_layers` has the gradients of the layers between resolutions.
        pytest.param("two resolutions", ObjectiveConfig(), marks=pytest.mark.slow),
    ],
    ids=["one resolution, other settings", "two resolutions"],
)
def test_loss_and_every_gradient_match_pytorch(sizes, config, keep, hands, references, load_torch, error):
    reference = references(sizes)
    batch, draws = random_batch(keep)
    batch = batch._replace(hand_mask=batch.hand_mask & hands)
    for net in reference.modules.values():
        net.zero_grad()
    expected, expected_sums = reference.loss(batch, draws, config)
    expected.backward()

    networks = in_jax(load_torch, reference, reference.weights())
    execution = Execution(remat=sizes == "one resolution")
    (loss, sums), gradients = run(networks, batch, draws, config, execution)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    assert as_floats(sums) == pytest.approx(expected_sums, rel=1e-5)

    ours, theirs = by_path(gradients), by_path(in_jax(load_torch, reference, reference.gradients()))
    assert ours.keys() == theirs.keys()
    norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in theirs.values()))
    idle = {path for path in theirs if any(part in path for part in WITHOUT_GRADIENT)}
    # Transformers in the middle and in the first of two levels, spatial and temporal: a norm's two, query and key.
    assert len(idle) == len(SIZES[sizes]["block_out_channels"]) * 2 * 4
    for path, gradient in theirs.items():
        if path in idle:
            assert np.linalg.norm(gradient) < 1e-12 * norm, path
            np.testing.assert_array_equal(ours[path], 0, err_msg=path)
        else:
            assert np.linalg.norm(gradient) > 1e-6 * norm, f"{path} is too small to compare"
            assert error(ours[path], gradient) < 1e-4, path


def test_sums_worked_by_hand(references, load_torch):
    """A network that answers (0, 0, 0, 2) whatever it is shown, and targets that are 0, 4, -4 and -2 all over."""
    reference = references("one resolution")
    arrays = {name: {k: torch.zeros_like(v) for k, v in net.items()} for name, net in reference.weights().items()}
    arrays["unet"]["conv_out.bias"][3] = 2
    batch, draws = random_batch(EVERY_DROPOUT)
    sigma = [1, 3 / 4, 4 / 3, 3 / 4]  # sqrt(sigma^2 + 1): 5/4, 5/3, 5/4
    latents, noise = [0, 0, 5, 10], [0, 5, 0, 5]  # v = (noise - sigma latents) / sqrt(sigma^2 + 1)

    def everywhere(values):
        return jnp.broadcast_to(jnp.array(values, jnp.float32)[:, None, None, None, None], batch.latents.shape)

    hands = np.zeros(batch.hand_mask.shape, bool)  # 3 x 4 x 6 = 72 positions a sample
    hands[0, 0, 0, :2] = hands[1, 2, 3, 5] = hands[3] = True
    batch = batch._replace(latents=everywhere(latents), hand_mask=jnp.asarray(hands))
    draws = draws._replace(sigma=jnp.array(sigma, jnp.float32), noise=everywhere(noise))
    networks = in_jax(load_torch, reference, arrays)
    (loss, sums), _ = run(networks, batch, draws, OTHER, Execution(remat=True))  # the program is compiled
    # Mean over channels of (prediction - v)^2: 4/4 = 1, (3 16 + 4)/4 = 13, (3 16 + 36)/4 = 21, (3 4 + 16)/4 = 7.
    expected = {
        "hand_error": 2 * 1 + 1 * 13 + 72 * 7,
        "hand_count": 2 + 1 + 72,
        "other_error": 70 * 1 + 71 * 13 + 72 * 21,
        "other_count": 70 + 71 + 72,
    }
    assert as_floats(sums) == pytest.approx(expected, rel=1e-6)
    assert float(loss) == pytest.approx((3 * 519 + 2505) / 288, rel=1e-6)


def test_the_target_is_what_denoises_exactly():
    """c_skip x + c_out v = latents in float64, over every noise level that sampling and training can meet."""
    rng = np.random.default_rng(1)
    between = np.exp(rng.uniform(math.log(0.002), math.log(700), 100))
    sigma = np.array([0.002, *between, 700], np.float32)[:, None]
    latents, noise = rng.standard_normal((2, len(sigma), 200)).astype(np.float32)
    v = np.asarray(velocity(jnp.asarray(latents), jnp.asarray(noise), jnp.asarray(sigma)), np.float64)
    sigma = sigma.astype(np.float64)
    x = latents + sigma * noise
    denoised = x / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * v
    assert np.abs(denoised - latents).max() < 1e-5


NUM_DRAWS = 20_000
ERRORS = 4 / math.sqrt(NUM_DRAWS)  # four standard errors of a mean of unit variance


def draw_many(config: ObjectiveConfig) -> Draws:
    """Draw NumPy arrays, with three numbers of noise per sample."""
    return jax.tree.map(np.asarray, draw(config, 0, jnp.arange(NUM_DRAWS, dtype=jnp.uint32), (1, 1, 1, 3)))


def assert_normal(values: np.ndarray, mean: float = 0.0, std: float = 1.0):
    assert values.mean() == pytest.approx(mean, abs=std * ERRORS)
    assert values.std() == pytest.approx(std, abs=std * ERRORS / math.sqrt(2))
    assert stats.kstest(values, stats.norm(mean, std).cdf).pvalue > 1e-3


def test_noise_levels_noise_and_augmentation_have_their_distributions():
    draws = draw_many(ObjectiveConfig(noise_aug_strength=0.05, noise_aug_log_std=0.5))
    assert_normal(np.log(draws.sigma), 0.5, 1.4)  # the paper's
    assert_normal(np.log(draws.noise_aug), math.log(0.05), 0.5)
    noise = draws.noise.reshape(NUM_DRAWS, 3)
    for element in noise.T:
        assert_normal(element)
    parts = [np.log(draws.sigma), np.log(draws.noise_aug), draws.keep_context, draws.keep_image, *noise.T]
    correlation = np.corrcoef(np.array(parts, np.float64))
    correlation[2, 3] = correlation[3, 2] = 0  # by design: see the shares of the drop-outs
    assert np.abs(correlation - np.eye(len(parts))).max() < ERRORS
    for part in parts:
        assert abs(np.corrcoef(part[1:], part[:-1])[0, 1]) < ERRORS  # neighbours in the sequence


def test_other_noise_levels_as_configured():
    assert_normal(np.log(draw_many(ObjectiveConfig(sigma_log_mean=-1.2, sigma_log_std=0.3)).sigma), -1.2, 0.3)
    np.testing.assert_array_equal(draw_many(ObjectiveConfig()).noise_aug, np.float32(0.02))


@pytest.mark.parametrize(
    ("config", "p"), [(ObjectiveConfig(), 0.1), (ObjectiveConfig(dropout=0.3, drop_pose=False), 0.3)]
)
def test_each_kind_of_dropout_has_its_share(config, p):
    draws = draw_many(config)
    no_context, no_image = ~draws.keep_context, ~draws.keep_image
    tolerance = math.sqrt(p * (1 - p)) * ERRORS
    for kind in (no_context & ~no_image, no_context & no_image, ~no_context & no_image):
        assert kind.mean() == pytest.approx(p, abs=tolerance)
    np.testing.assert_array_equal(~draws.keep_pose, no_context & no_image & config.drop_pose)


def test_without_dropout_everything_is_kept():
    draws = draw_many(ObjectiveConfig(dropout=0))
    assert draws.keep_context.all()
    assert draws.keep_image.all()
    assert draws.keep_pose.all()


def test_draws_belong_to_seed_and_index_alone():
    config, shape = ObjectiveConfig(noise_aug_log_std=1.0, dropout=0.3), (2, 3, 5, 4)
    index = np.append(np.arange(15), 2**32 - 1).astype(np.uint32)

    def draws(seed, index):
        return jax.tree.map(np.asarray, draw(config, seed, jnp.asarray(index), shape))

    whole = draws(7, index)
    order = np.random.default_rng(0).permutation(len(index))
    for part in (order, order[4:5]):
        jax.tree.map(np.testing.assert_array_equal, draws(7, index[part]), Draws(*(x[part] for x in whole)))
    # No two of (seed, index) share anything continuous; seed + index, say, would.
    several = [whole, *(draws(seed, index) for seed in (0, 1, 2, 2**31 - 1))]
    for name in ("sigma", "noise_aug", "noise"):
        values = np.concatenate([getattr(one, name).reshape(len(index), -1) for one in several])
        assert len(np.unique(values[:, 0])) == len(values), name
    assert len(np.unique(whole.noise)) > 0.99 * whole.noise.size  # nor do positions of one sample


def test_the_encoders_add_the_noise_that_the_network_is_conditioned_on():
    """The strength drawn for the pixels is the condition that `draw` returns."""
    config, index = ObjectiveConfig(noise_aug_log_std=1.0), jnp.arange(16, dtype=jnp.uint32)
    keys = sample_keys(3, index)
    np.testing.assert_array_equal(draw_noise_aug(config, keys), draw(config, 3, index, (2, 3, 5, 4)).noise_aug)
    every_key = np.concatenate([jax.random.key_data(keys[purpose]) for purpose in keys])
    assert len(np.unique(every_key, axis=0)) == 5 * len(index)  # five purposes
