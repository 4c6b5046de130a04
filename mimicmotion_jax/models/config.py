"""Sizes of the networks: frozen dataclasses that can be read from any official `config.json`."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from mimicmotion_jax.config import build_config, config_dataclass
from mimicmotion_jax.runtime.errors import InputError

_CROSS_DOWN, _DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
_CROSS_UP, _UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"
NUM_GROUPS = 32  # groups of every group norm in SVD; 32 channels then have one each, whose mean is lost

_Count = Annotated[int, Field(ge=1)]
_Counts = Annotated[tuple[_Count, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class _Official:
    """Base of configs that correspond to the `config.json` of a PyTorch class."""

    official_class: ClassVar[str]
    _ignored: ClassVar[frozenset[str]] = frozenset()  # official keys that do not change the network
    _fixed: ClassVar[Mapping[str, Any]] = {}  # official keys of which a single value is supported

    @classmethod
    def from_official(cls, values: Mapping[str, Any]) -> Self:
        """Convert from a parsed official `config.json`.

        Raises:
            InputError: another network class, an unknown key, or an unsupported value.
        """
        name = values.get("_class_name") or next(iter(values.get("architectures") or []), cls.official_class)
        if name != cls.official_class:
            raise InputError(f"this config.json describes a {name}, but a {cls.official_class} is needed here.")
        for key, value in cls._fixed.items():
            if values.get(key, value) != value:
                raise InputError(f"{name}: {key}={values[key]!r} is not supported, only {value!r} is.")
        fields = {field.name for field in dataclasses.fields(cls)}
        known = fields | cls._ignored | set(cls._fixed)
        unknown = sorted(key for key in values if key not in known and not key.startswith("_"))
        if unknown:
            raise InputError(f"{name}: unknown keys in config.json: {', '.join(unknown)}.")
        return build_config(
            cls, {key: value for key, value in values.items() if key in fields}, f"{name}'s config.json"
        )

    def to_official(self) -> dict[str, Any]:
        """Convert to an official `config.json`, as a dictionary.

        Raises:
            InputError: `norm_num_groups` differs from the fixed one of the PyTorch class.
        """
        values = dataclasses.asdict(self)
        if (groups := values.pop("norm_num_groups", NUM_GROUPS)) != NUM_GROUPS:
            raise InputError(
                f"the official {self.official_class} has group norms of {NUM_GROUPS} groups, so a model with "
                f"norm_num_groups={groups} cannot be written in its layout."
            )
        return {"_class_name": self.official_class, **values, **self._fixed}


def _per_block(value: int | tuple[int, ...], num_blocks: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * num_blocks


@config_dataclass
class UNetConfig(_Official):
    """SVD's spatio-temporal UNet (diffusers `UNetSpatioTemporalConditionModel`); the defaults are the full model."""

    in_channels: _Count = 8
    out_channels: _Count = 4
    down_block_types: tuple[str, ...] = (_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN)
    up_block_types: tuple[str, ...] = (_UP, _CROSS_UP, _CROSS_UP, _CROSS_UP)
    block_out_channels: _Counts = (320, 640, 1280, 1280)
    addition_time_embed_dim: _Count = 256
    projection_class_embeddings_input_dim: _Count = 768
    layers_per_block: _Count | _Counts = 2
    cross_attention_dim: _Count | _Counts = 1024
    transformer_layers_per_block: _Count | _Counts = 1
    num_attention_heads: _Count | _Counts = (5, 10, 20, 20)
    num_frames: _Count = 25
    norm_num_groups: _Count = NUM_GROUPS

    official_class = "UNetSpatioTemporalConditionModel"
    _ignored = frozenset({"sample_size"})

    def __post_init__(self) -> None:
        blocks = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types", *_PER_BLOCK):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != blocks:
                raise ValueError(f"{name} has {len(value)} entries for {blocks} blocks")
        for kinds, known in ((self.down_block_types, {_CROSS_DOWN, _DOWN}), (self.up_block_types, {_CROSS_UP, _UP})):
            if unknown := set(kinds) - known:
                raise ValueError(f"block type {sorted(unknown)[0]!r} is not one of {sorted(known)}")
        for channels, heads in zip(self.block_out_channels, self.blocks("num_attention_heads"), strict=True):
            if channels % self.norm_num_groups or channels % heads:
                raise ValueError(
                    f"{channels} channels do not divide into {self.norm_num_groups} groups and {heads} heads"
                )
        if any(size % 2 for size in (*self.block_out_channels, self.addition_time_embed_dim)):
            raise ValueError("block_out_channels and addition_time_embed_dim must be even: half of them holds cosines")
        if self.projection_class_embeddings_input_dim != 3 * self.addition_time_embed_dim:
            raise ValueError("projection_class_embeddings_input_dim must be 3 x addition_time_embed_dim")
        if len(set(self.blocks("cross_attention_dim"))) != 1:
            raise ValueError("cross_attention_dim must be the same in all blocks: they all see one CLIP embedding")

    def blocks(self, name: str) -> tuple[int, ...]:
        """Values of the field `name` per block, from the finest resolution to the coarsest."""
        return _per_block(getattr(self, name), len(self.block_out_channels))

    @property
    def num_up_layers(self) -> int:
        """Number of layers on the way up, each of which takes a skip."""
        return sum(count + 1 for count in self.blocks("layers_per_block"))

    def deep_features(self, depth: int) -> tuple[int, int]:
        """Channels of the features below the last `depth` layers (`UNet.predict`), and the level of their resolution.

        Level 0 is the finest; each further one halves both sides.
        """
        last = len(self.block_out_channels) - 1
        ends = itertools.accumulate(count + 1 for count in self.blocks("layers_per_block"))
        level = min(sum(end <= depth for end in ends), last)
        return self.block_out_channels[level], level

    @property
    def context_dim(self) -> int:
        """Width of the CLIP embedding in the cross-attention layers."""
        return self.blocks("cross_attention_dim")[0]

    @property
    def downscale(self) -> int:
        """Required divisor of latent heights and widths."""
        return 2 ** (len(self.block_out_channels) - 1)


_PER_BLOCK = ("layers_per_block", "cross_attention_dim", "transformer_layers_per_block", "num_attention_heads")


@config_dataclass
class VAEConfig(_Official):
    """SVD's VAE (diffusers `AutoencoderKLTemporalDecoder`): image encoder and temporal decoder."""

    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    block_out_channels: _Counts = (128, 256, 512, 512)
    layers_per_block: _Count = 2
    latent_channels: _Count = 4
    scaling_factor: Annotated[float, Field(gt=0)] = 0.18215
    norm_num_groups: _Count = NUM_GROUPS

    official_class = "AutoencoderKLTemporalDecoder"
    _ignored = frozenset({"sample_size", "force_upcast", "down_block_types"})

    def __post_init__(self) -> None:
        if any(channels % self.norm_num_groups for channels in self.block_out_channels):
            raise ValueError(f"block_out_channels must be multiples of norm_num_groups ({self.norm_num_groups})")

    def to_official(self) -> dict[str, Any]:
        """Convert to an official `config.json`, as a dictionary."""
        blocks = ["DownEncoderBlock2D"] * len(self.block_out_channels)
        return {**super().to_official(), "down_block_types": blocks, "force_upcast": True, "sample_size": 768}

    @property
    def downscale(self) -> int:
        """Pixels per latent position along each axis (8 for SVD)."""
        return 2 ** (len(self.block_out_channels) - 1)


@config_dataclass
class CLIPConfig(_Official):
    """CLIP image encoder with projection (transformers `CLIPVisionModelWithProjection`); default ViT-H/14."""

    hidden_size: _Count = 1280
    intermediate_size: _Count = 5120
    projection_dim: _Count = 1024
    num_hidden_layers: _Count = 32
    num_attention_heads: _Count = 16
    num_channels: Literal[3] = 3
    image_size: _Count = 224
    patch_size: _Count = 14
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-5

    official_class = "CLIPVisionModelWithProjection"
    _ignored = frozenset(
        {"architectures", "attention_dropout", "dropout", "dtype", "torch_dtype", "initializer_factor"}
        | {"initializer_range", "model_type", "transformers_version"}
    )

    def __post_init__(self) -> None:
        if self.hidden_act not in ("gelu", "quick_gelu"):
            raise ValueError(f"hidden_act {self.hidden_act!r} is neither 'gelu' nor 'quick_gelu'")
        if self.image_size % self.patch_size or self.hidden_size % self.num_attention_heads:
            raise ValueError("image_size must be a multiple of patch_size and hidden_size of num_attention_heads")

    def to_official(self) -> dict[str, Any]:
        """Convert to an official `config.json`, as a dictionary."""
        values = dataclasses.asdict(self)
        return {"architectures": [self.official_class], "model_type": "clip_vision_model", **values}


@config_dataclass
class PoseNetConfig:
    """PoseNet (paper, appendix B, table 3): widths and strides of its convolutions."""

    channels: _Counts = (3, 16, 16, 32, 32, 64, 64, 128)
    strides: tuple[Annotated[int, Field(ge=1, le=2)], ...] = (1, 2, 1, 2, 1, 2, 1, 1)
    out_channels: _Count = 320

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.channels):
            raise ValueError(f"strides has {len(self.strides)} entries for {len(self.channels)} channels")

    @property
    def downscale(self) -> int:
        """Pixels per position of the features along each axis."""
        return math.prod(self.strides)

    @property
    def stem_layers(self) -> int:
        """Number of convolutions in the stem, whose output is kept for a whole video: the narrowest at full depth."""
        last_stride = max((i for i, stride in enumerate(self.strides) if stride > 1), default=0)
        return 1 + min(range(last_stride, len(self.channels)), key=lambda i: (self.channels[i], -i))

    @property
    def stem_channels(self) -> int:
        """Channels of the stem's output."""
        return self.channels[self.stem_layers - 1]


@config_dataclass
class ModelConfig:
    """Sizes of all four networks, and the number of frames per window that the checkpoint was trained with."""

    unet: UNetConfig = UNetConfig()
    vae: VAEConfig = VAEConfig()
    image_encoder: CLIPConfig = CLIPConfig()
    pose_net: PoseNetConfig = PoseNetConfig()
    window_size: Annotated[int, Field(ge=2)] = 16

    def __post_init__(self) -> None:
        if self.image_encoder.projection_dim != self.unet.context_dim:
            raise ValueError(
                f"the image encoder gives {self.image_encoder.projection_dim} numbers, the UNet's cross-attention "
                f"takes {self.unet.context_dim}"
            )
        if self.pose_net.out_channels != self.unet.block_out_channels[0]:
            raise ValueError("PoseNet's out_channels must equal the UNet's first block_out_channels")
        if self.unet.in_channels != 2 * self.vae.latent_channels or self.unet.out_channels != self.vae.latent_channels:
            raise ValueError("the UNet must take twice the VAE's latent channels and return them once")
        if self.pose_net.downscale != self.vae.downscale:
            raise ValueError(
                f"the strides of PoseNet multiply to {self.pose_net.downscale}, but the VAE has {self.vae.downscale} "
                "pixels per latent position along each axis"
            )

    @classmethod
    def tiny(cls) -> Self:
        """Sizes of a model with half a million parameters and every kind of layer, for tests and experiments."""
        unet = UNetConfig(
            down_block_types=(_CROSS_DOWN, _DOWN),
            up_block_types=(_UP, _CROSS_UP),
            block_out_channels=(32, 64),
            layers_per_block=1,
            num_attention_heads=(1, 2),
            cross_attention_dim=16,
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96,
            num_frames=8,
        )
        clip = CLIPConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            patch_size=32,
        )
        vae = VAEConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
        return cls(unet=unet, vae=vae, image_encoder=clip, pose_net=PoseNetConfig(out_channels=32), window_size=8)

    @property
    def size_multiple(self) -> int:
        """Required divisor of image heights and widths in pixels (64 for the full model)."""
        return self.vae.downscale * self.unet.downscale
