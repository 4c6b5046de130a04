"""The pipeline against the official generation loop, written anew in PyTorch around diffusers and transformers.

Random weights and settings that no recorded output covers; the recorded ones are compared in `test_pipeline`.
"""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig, VAEConfig

CROSS_DOWN, DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
CROSS_UP, UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"
CONTEXT = 48


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of the networks and of the video, and the pipeline's options under the pipeline's names."""

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    layers: int
    vae_channels: tuple[int, ...]
    frames: int
    height: int
    width: int
    options: dict[str, float]


LANDSCAPE = Case(
    channels=(32, 96),
    heads=(1, 3),
    layers=2,
    vae_channels=(32, 32, 64, 64),
    frames=14,  # windows start at 0, 3, 6 and, off the beat, 8; the last decoding chunk has two frames
    height=32,
    width=64,
    options={"num_inference_steps": 4, "guidance_scale": 3.5, "noise_aug_strength": 0.05, "fps": 12}
    | {"motion_bucket_id": 90, "window_size": 6, "window_overlap": 3, "decode_chunk_size": 3},
)
PORTRAIT = Case(
    channels=(64, 32, 96),
    heads=(2, 1, 3),
    layers=1,
    vae_channels=(64, 32, 96, 32),
    frames=5,
    height=96,
    width=64,
    options={"num_inference_steps": 6, "guidance_scale": 1.0, "noise_aug_strength": 0.0, "fps": 25}
    | {"motion_bucket_id": 200, "window_size": 5, "window_overlap": 1, "decode_chunk_size": 8},
)


class PoseNet(torch.nn.Module):
    """Appendix B, table 3: eight convolutions with SiLU, a projection, a learned scale."""

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


class OfficialLoop:
    """The four networks in PyTorch, and the loop of the official release."""

    def __init__(self, case: Case, random_weights):
        coarse = len(case.channels) - 1
        unet = UNetSpatioTemporalConditionModel(
            down_block_types=(CROSS_DOWN,) * coarse + (DOWN,),
            up_block_types=(UP,) + (CROSS_UP,) * coarse,
            block_out_channels=case.channels,
            num_attention_heads=case.heads,
            layers_per_block=case.layers,
            cross_attention_dim=CONTEXT,
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96,
        )
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=case.vae_channels, layers_per_block=1
        )
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        clip = CLIPVisionConfig(**sizes, projection_dim=CONTEXT, patch_size=32, hidden_act="gelu")
        networks = (unet, vae, CLIPVisionModelWithProjection(clip), PoseNet(case.channels[0]))
        self.unet, self.vae, self.clip, self.pose_net = (random_weights(net, i) for i, net in enumerate(networks))
        self.scheduler = EulerDiscreteScheduler(
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_type="continuous",
            timestep_spacing="leading",
        )

    @torch.no_grad()
    def __call__(self, image, pose_images, noise, noise_aug, options) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [F, 4, h, w] and frames [F, 3, H, W] in [0, 1], from channels-first inputs."""
        window, overlap = options["window_size"], options["window_overlap"]
        num_frames, guidance = len(pose_images), options["guidance_scale"]
        image = image[None] / 127.5 - 1
        context = self.embed(image)
        reference = self.vae.encode(image + options["noise_aug_strength"] * noise_aug).latent_dist.mode()
        poses = self.pose_net(pose_images / 127.5 - 1)
        ids = torch.tensor([[options["fps"] - 1.0, options["motion_bucket_id"], options["noise_aug_strength"]]])

        starts = list(range(0, num_frames - window + 1, window - overlap))
        if starts[-1] + window < num_frames:
            starts.append(num_frames - window)
        windows = [[0, *range(start + 1, start + window)] for start in starts]
        hat = (torch.arange(window) + 0.5) * 2 / window
        hat = torch.minimum(hat, 2 - hat)[:, None, None, None]

        self.scheduler.set_timesteps(options["num_inference_steps"])
        latents = noise[torch.arange(num_frames) % window] * (700.0**2 + 1) ** 0.5
        for timestep in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(latents, timestep)
            total, weights = torch.zeros_like(latents), torch.zeros(num_frames, 1, 1, 1)
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
        """What SVD shows to CLIP, and what CLIP makes of it [1, 1, context]."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        seen = (_resize_with_antialiasing(image, (224, 224)) + 1) / 2
        return self.clip((seen - mean) / std).image_embeds[:, None]

    def predict(self, scaled, timestep, context, reference, ids, poses):
        """v of one branch in one window; `poses` are added once, behind the first convolution."""
        sample = torch.cat([scaled, reference.expand(len(scaled), -1, -1, -1)], dim=1)[None]
        hook = self.unet.conv_in.register_forward_hook(lambda _, __, out: out if poses is None else out + poses)
        v = self.unet(sample, timestep, context, added_time_ids=ids).sample[0]
        hook.remove()
        return v

    def in_jax(self, load_torch) -> MimicMotionPipeline:
        """Our pipeline with the same weights."""
        config = ModelConfig(
            unet=UNetConfig.from_official(dict(self.unet.config)),
            vae=VAEConfig.from_official(dict(self.vae.config)),
            image_encoder=CLIPConfig.from_official(self.clip.config.to_diff_dict() | {"architectures": None}),
            pose_net=PoseNetConfig(out_channels=self.unet.config.block_out_channels[0]),
        )
        networks = {"unet": self.unet, "vae": self.vae, "image_encoder": self.clip, "pose_net": self.pose_net}
        ours = {name: load_torch(name, config, network.state_dict()) for name, network in networks.items()}
        return MimicMotionPipeline(config, **ours, mesh=sharding.sampling_mesh(1))


@pytest.mark.parametrize(
    "case",
    [pytest.param(LANDSCAPE, id="guided, windows, landscape"), pytest.param(PORTRAIT, id="one window, portrait")],
)
def test_same_latents_and_frames(case, load_torch, random_weights, error):
    official = OfficialLoop(case, random_weights)
    generator = np.random.default_rng(7)
    image = generator.integers(0, 256, (case.height, case.width, 3), np.uint8)
    poses = generator.integers(0, 256, (case.frames, case.height, case.width, 3), np.uint8)
    noise_shape = (case.options["window_size"], case.height // 8, case.width // 8, 4)
    noise, noise_aug = (generator.standard_normal(shape, np.float32) for shape in (noise_shape, image.shape))

    arrays = (torch.from_numpy(np.moveaxis(array, -1, -3).copy()) for array in (image, poses, noise, noise_aug))
    latents, frames = (out.movedim(1, -1).numpy() for out in official(*arrays, case.options))
    assert frames.std() > 0.1  # neither grey nor saturated: the comparison below has something to see
    assert np.mean((frames > 0) & (frames < 1)) > 0.5

    pipeline = official.in_jax(load_torch)
    given = {"noise": noise, "noise_aug": noise_aug, "fusion": "official", "keep_reference_frame": True}
    ours = {kind: pipeline(image, poses, output_type=kind, **given, **case.options).frames for kind in ("latent", "np")}
    assert error(ours["latent"], latents) < 5e-5
    psnr = -10 * np.log10(np.mean((ours["np"].astype(np.float64) - frames) ** 2))
    assert psnr > 70
