"""Sizes of the model and of the video: the released model's, a middle one for CPUs, a tiny one for tests."""

import dataclasses
import math

from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig, VAEConfig

_CROSS_DOWN, _DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
_CROSS_UP, _UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of the networks, and one window of video.

    Attributes:
        channels: of the UNet, by resolution.
        heads: of the UNet's attention, by resolution.
        layers: of the UNet and the VAE, by resolution.
        vae_channels: of the VAE, by resolution.
        context: width of CLIP's embedding.
        time_dim: width of the embedding of each added number.
        frames: of a window.
        height: pixels.
        width: pixels.
        steps: denoising steps.
        decode_chunk: frames that are decoded together.
        rounds: timed calls.
    """

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    layers: int
    vae_channels: tuple[int, ...]
    context: int
    time_dim: int
    frames: int
    height: int
    width: int
    steps: int
    decode_chunk: int
    rounds: int = 3

    @property
    def full(self) -> bool:
        """True for the released model."""
        return self.channels[0] >= 320

    @property
    def options(self) -> dict[str, float]:
        """Options of sampling, as the official release calls them."""
        fixed = {"guidance_scale": 2.0, "noise_aug_strength": 0.0, "fps": 7, "motion_bucket_id": 127}
        window = {"window_size": self.frames, "window_overlap": min(2, self.frames - 1)}
        return fixed | window | {"decode_chunk_size": self.decode_chunk, "num_inference_steps": self.steps}

    @property
    def latents(self) -> tuple[int, int, int, int]:
        """Shape [F, h, w, 4] of a window's latents."""
        return self.frames, self.height // 8, self.width // 8, 4

    @property
    def model(self) -> ModelConfig:
        """Configuration of our model; at full size with the released CLIP."""
        levels = len(self.channels)
        unet = UNetConfig(
            down_block_types=(_CROSS_DOWN,) * (levels - 1) + (_DOWN,),
            up_block_types=(_UP,) + (_CROSS_UP,) * (levels - 1),
            block_out_channels=self.channels,
            layers_per_block=self.layers,
            num_attention_heads=self.heads,
            cross_attention_dim=self.context,
            addition_time_embed_dim=self.time_dim,
            projection_class_embeddings_input_dim=3 * self.time_dim,
        )
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        clip = CLIPConfig() if self.full else CLIPConfig(**small, projection_dim=self.context, patch_size=32)
        vae = VAEConfig(block_out_channels=self.vae_channels, layers_per_block=self.layers)
        return ModelConfig(
            unet=unet,
            vae=vae,
            image_encoder=clip,
            pose_net=PoseNetConfig(out_channels=self.channels[0]),
            window_size=self.frames,
        )

    def block(self, level: int) -> tuple[int, int, int]:
        """Channels, height and width of the UNet's arrays at a resolution, 0 the finest."""
        return self.channels[level], self.latents[1] >> level, self.latents[2] >> level

    def vae_block(self, level: int) -> tuple[int, int, int]:
        """Channels, height and width of the VAE's arrays at a resolution, 0 that of pixels."""
        return self.vae_channels[level], self.height >> level, self.width >> level


SIZES = {
    "full": Size(
        channels=(320, 640, 1280, 1280),
        heads=(5, 10, 20, 20),
        layers=2,
        vae_channels=(128, 256, 512, 512),
        context=1024,
        time_dim=256,
        frames=16,
        height=576,
        width=1024,
        steps=25,
        decode_chunk=8,
    ),
    # 62 million parameters, 24x32 latents, windows of 8 frames.
    "middle": Size(
        channels=(64, 128, 256, 256),
        heads=(1, 2, 4, 4),
        layers=2,
        vae_channels=(64, 128, 128, 128),
        context=256,
        time_dim=64,
        frames=8,
        height=192,
        width=256,
        steps=4,
        decode_chunk=8,
    ),
    "tiny": Size(
        channels=(32,),
        heads=(1,),
        layers=1,
        vae_channels=(32, 32, 32, 32),
        context=32,
        time_dim=32,
        frames=4,
        height=32,
        width=32,
        steps=2,
        decode_chunk=4,
        rounds=1,
    ),
}


def size_of(name: str, **changes: int) -> Size:
    """Size by name, with changes such as `frames=72`."""
    return dataclasses.replace(SIZES[name], **changes)


def positions(shape: tuple[int, int, int]) -> int:
    """Number of positions of (channels, height, width)."""
    return math.prod(shape[1:])
