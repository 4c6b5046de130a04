"""The official release's networks and loop in PyTorch with diffusers and transformers, and ours with its weights.

Written from a description of the release; tests and benchmarks compare with it.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from flax import nnx
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.checkpoint import fill_network
from mimicmotion_jax.convert.engine import Expected, match, network_leaves, to_ours
from mimicmotion_jax.convert.torch_files import Entry
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig, VAEConfig

CROSS_DOWN, DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
CROSS_UP, UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"

jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
)
"""`jax.jit` at XLA's default optimisation, whatever `XLA_FLAGS` say."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of the networks and of the video, and options of the pipeline by name."""

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    layers: int
    vae_channels: tuple[int, ...]
    frames: int
    height: int
    width: int
    options: dict[str, float]
    vae_layers: int = 1
    context: int = 48
    time_dim: int = 32  # width of the embedding of each of the three added time ids


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter a random value, including those initialised to constants."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(value / parameter[0].numel() ** 0.5)
            else:  # norms multiply by about one; biases and SVD's mixing factors are about zero
                parameter.copy_(0.2 * value + float(name.endswith(".weight")))
    return module.eval()


def from_torch(
    name: str, config: ModelConfig, state_dict: dict[str, torch.Tensor], dtype: str = "float32"
) -> nnx.Module:
    """Build our network `name` with the weights of a torch module, through the converter's tables and checks."""
    entries = [Entry(k, tuple(v.shape), str(v.dtype).removeprefix("torch."), None) for k, v in state_dict.items()]
    found = match(name, entries, [Expected(name, "", network_leaves(name, config))])[name]
    arrays = {p: jnp.asarray(to_ours(state_dict[e.key].cpu(), leaf, dtype)) for p, (leaf, e) in found.items()}
    return fill_network(abstract_network(name, config), arrays)


class PoseNet(torch.nn.Module):
    """PoseNet of the paper's appendix B, table 3: eight convolutions with SiLU, a projection, a learned scale."""

    def __init__(self, out_channels: int):
        super().__init__()
        widths, layers = (3, 3, 16, 16, 32, 32, 64, 64, 128), []
        for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1)):
            layers += [torch.nn.Conv2d(widths[i], widths[i + 1], 2 + stride, stride, 1), torch.nn.SiLU()]
        self.conv_layers = torch.nn.Sequential(*layers)
        self.final_proj = torch.nn.Conv2d(widths[-1], out_channels, 1)
        self.scale = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, pixels):
        return self.scale * self.final_proj(self.conv_layers(pixels))


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Leave the parameters of layers that are made meanwhile without values: drawing 1.6 billion takes a minute."""
    with mock.patch.multiple(torch.nn.init, kaiming_uniform_=mock.DEFAULT, uniform_=mock.DEFAULT):
        yield


class OfficialLoop:
    """Four networks in PyTorch with random weights, and the sampling loop of the official release.

    Each network is built when it is first used.

    Args:
        case: sizes.
        device: device of parameters and computation.
        dtype: dtype of parameters and computation.
        fill: gives a network's parameters values; called with the network and a seed.
    """

    def __init__(
        self,
        case: Case,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        fill: Callable[[torch.nn.Module, int], torch.nn.Module] = randomise,
    ):
        self.case, self.device, self.dtype, self.fill = case, device, dtype, fill
        self.scheduler = EulerDiscreteScheduler(
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_type="continuous",
            timestep_spacing="leading",
        )

    def _place(self, make: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
        with uninitialised():
            network = make()
        return self.fill(network, seed).to(self.device, self.dtype)

    @functools.cached_property
    def unet(self) -> UNetSpatioTemporalConditionModel:
        """UNet with MimicMotion's inputs."""
        case, coarse = self.case, len(self.case.channels) - 1
        make = functools.partial(
            UNetSpatioTemporalConditionModel,
            down_block_types=(CROSS_DOWN,) * coarse + (DOWN,),
            up_block_types=(UP,) + (CROSS_UP,) * coarse,
            block_out_channels=case.channels,
            num_attention_heads=case.heads,
            layers_per_block=case.layers,
            cross_attention_dim=case.context,
            addition_time_embed_dim=case.time_dim,
            projection_class_embeddings_input_dim=3 * case.time_dim,
        )
        return self._place(make, 0)

    @functools.cached_property
    def vae(self) -> AutoencoderKLTemporalDecoder:
        """VAE with the temporal decoder."""
        make = functools.partial(
            AutoencoderKLTemporalDecoder,
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=self.case.vae_channels,
            layers_per_block=self.case.vae_layers,
        )
        return self._place(make, 1)

    @functools.cached_property
    def clip(self) -> CLIPVisionModelWithProjection:
        """Small CLIP image encoder."""
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = CLIPVisionConfig(**sizes, projection_dim=self.case.context, patch_size=32, hidden_act="gelu")
        return self._place(lambda: CLIPVisionModelWithProjection(config), 2)

    @functools.cached_property
    def pose_net(self) -> PoseNet:
        """PoseNet of the UNet's width."""
        return self._place(lambda: PoseNet(self.case.channels[0]), 3)

    @torch.no_grad()
    def __call__(self, image, pose_images, noise, noise_aug, options) -> tuple[torch.Tensor, torch.Tensor]:
        """Generate latents [F, 4, h, w] and frames [F, 3, H, W] in [0, 1] from channels-first inputs."""
        image, pose_images, noise, noise_aug = (
            x.to(self.device, self.dtype) for x in (image, pose_images, noise, noise_aug)
        )
        window, overlap = options["window_size"], options["window_overlap"]
        num_frames, guidance = len(pose_images), options["guidance_scale"]
        image = image[None] / 127.5 - 1
        context = self.embed(image)
        reference = self.vae.encode(image + options["noise_aug_strength"] * noise_aug).latent_dist.mode()
        poses = self.pose_net(pose_images / 127.5 - 1)
        ids = torch.tensor([[options["fps"] - 1.0, options["motion_bucket_id"], options["noise_aug_strength"]]])
        ids = ids.to(self.device, self.dtype)

        starts = list(range(0, num_frames - window + 1, window - overlap))
        if starts[-1] + window < num_frames:
            starts.append(num_frames - window)
        windows = [[0, *range(start + 1, start + window)] for start in starts]
        hat = (torch.arange(window) + 0.5) * 2 / window
        hat = torch.minimum(hat, 2 - hat)[:, None, None, None].to(noise)

        self.scheduler.set_timesteps(options["num_inference_steps"], device=self.device)
        latents = noise[torch.arange(num_frames) % window] * (700.0**2 + 1) ** 0.5
        for timestep in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(latents, timestep)
            total, weights = torch.zeros_like(latents), noise.new_zeros(num_frames, 1, 1, 1)
            for frames in windows:
                v = self.predict(scaled[frames], timestep, context, reference, ids, poses[frames])
                if guidance > 1:
                    without = self.predict(scaled[frames], timestep, 0 * context, 0 * reference, ids, None)
                    v = without + guidance * (v - without)
                total[frames] += hat * v
                weights[frames] += hat
            latents = self.scheduler.step(total / weights, timestep, latents).prev_sample
        chunks = (latents / self.vae.config.scaling_factor).split(options["decode_chunk_size"])
        frames = torch.cat([self.vae.decode(chunk, num_frames=len(chunk)).sample for chunk in chunks])
        return latents, (frames / 2 + 0.5).clamp(0, 1)

    def embed(self, image):
        """Preprocess an image as SVD does and embed it with CLIP [1, 1, context]."""
        mean, std = (image.new_tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        seen = (_resize_with_antialiasing(image, (224, 224)) + 1) / 2
        return self.clip((seen - mean) / std).image_embeds[:, None]

    def predict(self, scaled, timestep, context, reference, ids, poses):
        """Predict v of one branch in one window; `poses` are added after the first convolution."""
        sample = torch.cat([scaled, reference.expand(len(scaled), -1, -1, -1)], dim=1)[None]
        hook = self.unet.conv_in.register_forward_hook(lambda _, __, out: out if poses is None else out + poses)
        v = self.unet(sample, timestep, context, added_time_ids=ids).sample[0]
        hook.remove()
        return v

    def in_jax(self, num_devices: int | None = 1, dtype: str = "float32") -> MimicMotionPipeline:
        """Build our pipeline with the same weights on `num_devices` devices; None takes all."""
        config = ModelConfig(
            unet=UNetConfig.from_official(dict(self.unet.config)),
            vae=VAEConfig.from_official(dict(self.vae.config)),
            image_encoder=CLIPConfig.from_official(self.clip.config.to_diff_dict() | {"architectures": None}),
            pose_net=PoseNetConfig(out_channels=self.unet.config.block_out_channels[0]),
        )
        networks = {"unet": self.unet, "vae": self.vae, "image_encoder": self.clip, "pose_net": self.pose_net}
        with jax.default_device(jax.devices("cpu")[0]):  # a device's peak memory shall be that of what it computes
            ours = {name: from_torch(name, config, net.state_dict(), dtype) for name, net in networks.items()}
        mesh = sharding.sampling_mesh(num_devices)
        return MimicMotionPipeline(config, **jax.device_put(ours, sharding.replicated(mesh)), mesh=mesh)
