"""Everything that `train_vae.py` lets you choose; configs/vae_synthetic.yaml is a complete example."""

import dataclasses
from typing import Annotated

from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, VAEConfig
from mimicmotion_jax.training.autoencoder.loss import AutoencoderLossConfig
from mimicmotion_jax.training.config import OptimizerConfig


@config_dataclass
class VAETrainConfig:
    """A training run of the VAE.

    There is no usual size or recipe: the defaults are those of the parts, and configs/vae_synthetic.yaml sets them.
    """

    output: str = "outputs/vae"  # local or gs://; a run that is there already is continued
    vae: VAEConfig = VAEConfig()  # scaling_factor is measured
    image_encoder: CLIPConfig = CLIPConfig()  # goes into the result with random weights
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    steps: Annotated[int, Field(ge=1)] = 2000
    batch_size: Annotated[int, Field(ge=1)] = 2  # clips per step
    data: DataConfig = DataConfig()
    validation: str | None = None  # dataset that PSNR is measured on; null: other clips of the training videos
    num_validation: Annotated[int, Field(ge=1)] = 8  # clips
    loss: AutoencoderLossConfig = AutoencoderLossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    log_every: Annotated[int, Field(ge=1)] = 10
    save_every: Annotated[int, Field(ge=1)] = 200
    keep: Annotated[int, Field(ge=1)] = 2  # newest checkpoints
    sample_every: Annotated[int, Field(ge=1)] | None = 200  # PSNR and pictures; null: only after the last step

    def __post_init__(self) -> None:
        if self.data.encodings:
            raise ValueError("the VAE is trained on pixels: leave data.encodings off")

    def model(self, scaling_factor: float) -> ModelConfig:
        """Sizes for the checkpoint that the run gives; UNet and PoseNet, which it does not hold, are tiny ones."""
        tiny, channels = ModelConfig.tiny(), self.vae.latent_channels
        unet = dataclasses.replace(
            tiny.unet,
            in_channels=2 * channels,
            out_channels=channels,
            cross_attention_dim=self.image_encoder.projection_dim,
        )
        vae = dataclasses.replace(self.vae, scaling_factor=scaling_factor)
        strides = (1, *(2,) * (len(vae.block_out_channels) - 1))
        pose_net = dataclasses.replace(tiny.pose_net, channels=(16,) * len(strides), strides=strides)
        return dataclasses.replace(tiny, unet=unet, vae=vae, image_encoder=self.image_encoder, pose_net=pose_net)
