"""Tiny checkpoints in the official layout: made here from the official classes, and the recorded one if it exists."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mimicmotion_jax.convert import convert

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "official"


def make_pose_net(out_channels: int) -> nn.Module:
    """The released PoseNet's parameters, after the paper's table 3."""
    widths, kernels = (3, 3, 16, 16, 32, 32, 64, 64, 128), (3, 4, 3, 4, 3, 4, 3, 3)
    layers: list[nn.Module] = []
    for cin, cout, kernel in zip(widths, widths[1:], kernels, strict=False):
        layers += [nn.Conv2d(cin, cout, kernel), nn.SiLU()]
    module = nn.Module()
    module.conv_layers = nn.Sequential(*layers)
    module.final_proj = nn.Conv2d(128, out_channels, 1)
    module.scale = nn.Parameter(torch.full((1,), 2.0))
    return module


def make_modules() -> dict[str, nn.Module]:
    """Official classes in a small size with fixed random weights."""
    torch.manual_seed(0)
    return {
        "unet": UNetSpatioTemporalConditionModel(
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 64),
            num_attention_heads=(1, 2),
            layers_per_block=1,
            cross_attention_dim=16,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            num_frames=9,
        ),
        "pose_net": make_pose_net(32),
        "vae": AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 64), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1
        ),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                projection_dim=16,
                image_size=28,
                patch_size=14,
            )
        ),
    }


@dataclasses.dataclass(frozen=True)
class Official:
    """A checkpoint in the official layout.

    Attributes:
        root: folder of `svd/` and `MimicMotion.pth`.
        state: tensors that a conversion must read from it, by network.
        dtype: dtype of the files.
        window_size: `num_frames` of the UNet's configuration.
    """

    root: Path
    state: dict[str, dict[str, torch.Tensor]]
    dtype: str
    window_size: int

    @property
    def svd(self) -> Path:
        return self.root / "svd"

    @property
    def motion(self) -> Path:
        return self.root / "MimicMotion.pth"


def write_official(root: Path, dtype: torch.dtype = torch.float16, variant: str | None = "fp16") -> Official:
    """Write the official layout; as in the release, svd/unet and MimicMotion's file have different weights."""
    modules = {name: module.to(dtype) for name, module in make_modules().items()}
    state = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in modules.items()}
    motion = {f"{name}.{key}": value for name in ("unet", "pose_net") for key, value in state[name].items()}
    root.mkdir(parents=True, exist_ok=True)
    torch.save(motion, root / "MimicMotion.pth")
    with torch.no_grad():
        modules["unet"].conv_in.weight.add_(1)
    for name in ("unet", "vae", "image_encoder"):
        modules[name].save_pretrained(root / "svd" / name, variant=variant)
    return Official(root, state, str(dtype).removeprefix("torch."), 9)


def read_golden() -> Official:
    motion = torch.load(GOLDEN / "MimicMotion.pth", weights_only=True)
    state = {
        name: {key.removeprefix(f"{name}."): value for key, value in motion.items() if key.startswith(f"{name}.")}
        for name in ("unet", "pose_net")
    }
    for name in ("vae", "image_encoder"):
        (file,) = (GOLDEN / "svd" / name).glob("*.safetensors")
        state[name] = load_file(file)
    return Official(GOLDEN, state, "float16", 6)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Official:
    """Checkpoint made here, in fp16. Not to be changed by a test."""
    return write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="session", params=["made", pytest.param("golden", marks=pytest.mark.slow)])
def official(request, made) -> Official:
    """Checkpoint made here, and the recorded one, in fp16. Not to be changed by a test."""
    if request.param == "made":
        return made
    if not GOLDEN.is_dir():
        pytest.skip("no recorded checkpoint in ../shared/golden")
    return read_golden()


@pytest.fixture(scope="session")
def converted_made(made, tmp_path_factory) -> Path:
    """`made` converted in its own dtype. Not to be changed by a test."""
    output = tmp_path_factory.mktemp("converted") / "ours"
    convert(str(made.svd), str(made.motion), output, progress=False)
    return output


@pytest.fixture(scope="session")
def converted(official, made, converted_made, tmp_path_factory) -> Path:
    """`official` converted in its own dtype. Not to be changed by a test."""
    if official is made:
        return converted_made
    output = tmp_path_factory.mktemp("converted") / "ours"
    convert(str(official.svd), str(official.motion), output, progress=False)
    return output


@pytest.fixture
def copy(made, tmp_path) -> Official:
    """Copy of the checkpoint made here, to be damaged."""
    shutil.copytree(made.root, tmp_path / "copy")
    return dataclasses.replace(made, root=tmp_path / "copy")


@pytest.fixture(scope="session")
def write_layout() -> Callable[..., Official]:
    return write_official


@pytest.fixture(scope="session")
def official_modules() -> Callable[[], dict[str, nn.Module]]:
    return make_modules
