"""Sizes of the small model of the synthetic world and of its training: for a card, minutes on a CPU, and a test."""

import dataclasses

from card.runner import ROOT
from mimicmotion_jax.config import build_config, load_config, read_values, to_dict
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig, VAEConfig
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.config import TrainConfig

TICKS = 1000
"""Steps of the schedules of learning rates; the clock decides how many of them have passed."""

_CROSS_DOWN, _DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
_CROSS_UP, _UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"


@dataclasses.dataclass(frozen=True)
class SmallSize:
    """Sizes of networks, batches and data.

    Attributes:
        width: pixels.
        height: pixels.
        vae_channels: of the VAE, by resolution from that of pixels on.
        vae_groups: of its group norms.
        latent_channels: of the VAE.
        channels: of the UNet, by resolution; all but the coarsest have transformers.
        heads: of the UNet's attention, by resolution.
        pose_channels: of PoseNet's convolutions.
        pose_strides: of the same.
        stroke_width: of drawn skeletons, times the official one.
        vae_clips: clips of 3 frames in a step of the VAE.
        clips: clips of 8 frames in a step of UNet and PoseNet.
        vae_rate: peak of the VAE's learning rate.
        rate: peak of the learning rate of UNet and PoseNet.
        dtype: of the computation.
        scene_frames: frames of a rendered scene.
        fps: frames per second of scenes, in turn.
        capacity: scenes that are kept.
        encode_scenes: scenes that are encoded together; divides `capacity`.
        scenes_first: scenes before training begins.
        workers: processes that render; None for one per core but a few.
        limit: scenes that are rendered in all; None for as many as there is time for.
        test: number of held-out scenes, and frames of each.
        vae_share: share of the time for the VAE.
        reserve: seconds kept for evaluation and export.
        max_steps: of either training; None for as many as fit the time.
    """

    width: int
    height: int
    vae_channels: tuple[int, ...]
    vae_groups: int
    latent_channels: int
    channels: tuple[int, ...]
    heads: tuple[int, ...]
    pose_channels: tuple[int, ...]
    pose_strides: tuple[int, ...]
    stroke_width: float
    vae_clips: int
    clips: int
    vae_rate: float = 1e-3
    rate: float = 1e-3
    dtype: str = "bfloat16"
    scene_frames: int = 24
    fps: tuple[float, ...] = (15.0, 7.5, 5.0)
    capacity: int = 4000
    encode_scenes: int = 4
    scenes_first: int = 64
    workers: int | None = None
    limit: int | None = None
    test: tuple[int, int] = (16, 48)
    vae_share: float = 1 / 3
    reserve: float = 60.0
    max_steps: int | None = None

    @property
    def model(self) -> ModelConfig:
        """Sizes of the four networks; the image encoder is that of configs/vae_synthetic.yaml."""
        levels = len(self.channels)
        unet = UNetConfig(
            in_channels=2 * self.latent_channels,
            out_channels=self.latent_channels,
            down_block_types=(_CROSS_DOWN,) * (levels - 1) + (_DOWN,),
            up_block_types=(_UP,) + (_CROSS_UP,) * (levels - 1),
            block_out_channels=self.channels,
            layers_per_block=1,
            num_attention_heads=self.heads,
            cross_attention_dim=32,
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96,
            norm_num_groups=16,
        )
        clip = build_config(CLIPConfig, read_values(ROOT / "configs" / "vae_synthetic.yaml")["image_encoder"])
        pose_net = PoseNetConfig(channels=self.pose_channels, strides=self.pose_strides, out_channels=self.channels[0])
        vae = VAEConfig(
            block_out_channels=self.vae_channels,
            layers_per_block=1,
            latent_channels=self.latent_channels,
            norm_num_groups=self.vae_groups,
        )
        return ModelConfig(unet=unet, vae=vae, image_encoder=clip, pose_net=pose_net, window_size=8)

    def vae_training(self) -> VAETrainConfig:
        """Options of `mimicmotion train-vae` for the synthetic world, at this size."""
        changes = {
            "batch_size": self.vae_clips,
            "steps": TICKS,
            "optimizer.learning_rate": self.vae_rate,
            "optimizer.warmup_steps": TICKS // 50,
        }
        return load_config(VAETrainConfig, ROOT / "configs" / "vae_synthetic.yaml", _overrides(changes))

    def training(self, model: ModelConfig, seed: int) -> TrainConfig:
        """Options of `mimicmotion train` for the synthetic world, at this size.

        Args:
            model: sizes of the networks.
            seed: of everything random.
        """
        values = read_values(ROOT / "configs" / "train_synthetic.yaml")
        values |= {"model": to_dict(model), "encoders": None, "seed": seed, "steps": TICKS, "dtype": self.dtype}
        values |= {"batch_size": self.clips, "output": "none", "sample_every": None}
        values["data"] |= {"width": self.width, "height": self.height, "stroke_width": self.stroke_width}
        values["data"] |= {"interval": (1, 1), "num_frames": model.window_size}  # scenes differ in their frame rates
        values["optimizer"] |= {"learning_rate": self.rate, "warmup_steps": TICKS // 50}
        return build_config(TrainConfig, values, "the small model's training")


def _overrides(changes: dict[str, float]) -> list[str]:
    return [f"{name}={value}" for name, value in changes.items()]


SMALL_SIZES = {
    # 14 million parameters in UNet and PoseNet, 24x32 latents.
    "full": SmallSize(
        width=192,
        height=256,
        vae_channels=(64, 64, 128, 128),
        vae_groups=8,
        latent_channels=12,
        channels=(128, 128, 128),
        heads=(2, 2, 2),
        # Nothing at full size: convolutions with 3 and 16 channels took an eighth of a step.
        pose_channels=(32, 32, 32, 64, 64, 128),
        pose_strides=(2, 1, 2, 1, 2, 1),
        stroke_width=3.0,
        vae_clips=16,
        clips=16,
        capacity=6000,
        limit=6000,  # people enough; encoding more of them takes a tenth of the time
    ),
    "middle": SmallSize(
        width=96,
        height=128,
        vae_channels=(16, 32, 64, 64),
        vae_groups=4,
        latent_channels=8,
        channels=(64, 64),
        heads=(2, 2),
        pose_channels=(3, 16, 16, 32, 32, 64),
        pose_strides=(1, 2, 1, 2, 1, 2),
        stroke_width=6.0,
        vae_clips=3,
        clips=4,
        vae_rate=2e-3,
        dtype="float32",
        capacity=400,
        scenes_first=8,
        workers=1,
        limit=400,
        test=(4, 24),
    ),
    "tiny": SmallSize(
        width=64,
        height=64,
        vae_channels=(8, 8),
        vae_groups=2,
        latent_channels=4,
        channels=(16,),
        heads=(1,),
        pose_channels=(4, 4),
        pose_strides=(1, 2),
        stroke_width=6.0,
        vae_clips=1,
        clips=2,
        dtype="float32",
        scene_frames=9,
        capacity=40,
        encode_scenes=1,
        workers=1,
        limit=12,
        scenes_first=2,
        test=(1, 9),
        reserve=5.0,
        max_steps=3,
    ),
}
