"""Options of `mimicmotion train-vae`; configs/vae_synthetic.yaml is a complete example."""

import dataclasses
from typing import Annotated

from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, VAEConfig
from mimicmotion_jax.training.autoencoder.loss import AutoencoderLossConfig
from mimicmotion_jax.training.config import RunConfig


@config_dataclass
class VAETrainConfig(RunConfig):
    """Training of a VAE from scratch.

    No size and no recipe is usual: the defaults are those of the parts, and configs/vae_synthetic.yaml sets them.
    """

    output: str = "outputs/vae"
    """Folder of the run, local or gs://; an unfinished run in it is continued."""
    vae: VAEConfig = VAEConfig()
    """Sizes of the VAE; its scaling_factor is measured after training."""
    image_encoder: CLIPConfig = CLIPConfig()
    """Sizes of the image encoder, which goes into the result with random weights."""
    steps: Annotated[int, Field(ge=1)] = 2000
    """Number of training steps."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Clips per step."""
    validation: str | None = None
    """Dataset that PSNR is measured on; null takes other clips of the training videos."""
    num_validation: Annotated[int, Field(ge=1)] = 8
    """Number of clips that PSNR is measured on."""
    loss: AutoencoderLossConfig = AutoencoderLossConfig()
    """Weights of the loss."""
    save_every: Annotated[int, Field(ge=1)] = 200
    """Steps between checkpoints."""
    sample_every: Annotated[int, Field(ge=1)] | None = 200
    """Steps between measurements of PSNR; null measures only after the last step."""

    def __post_init__(self) -> None:
        if self.data.encodings:
            raise ValueError("the VAE is trained on pixels: leave data.encodings off")

    def model(self, scaling_factor: float) -> ModelConfig:
        """Sizes for the checkpoint that the run writes; UNet and PoseNet, which it leaves out, are tiny ones."""
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
