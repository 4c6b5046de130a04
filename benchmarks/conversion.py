"""Conversion at full size: time, peak memory, equality of every tensor, loading, and the way back.

    python benchmarks/conversion.py [--dtype float32] [--folder DIR] [--small]

Makes a random checkpoint in the official layout (names and shapes from diffusers' and transformers' own classes, values
from a seed per tensor), converts it, and prints one JSON object. Every step runs in a process of its own, so that its
peak memory is its own. Needs about 20 GB of disk (35 GB with --dtype float32).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(REPOSITORY))

SMALL = {
    "unet": {
        "block_out_channels": (32, 32, 32, 64),
        "num_attention_heads": (1, 1, 2, 2),
        "cross_attention_dim": 32,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96,
    },
    "vae": {"block_out_channels": (32, 32, 32, 64)},
    "image_encoder": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 32,
        "projection_dim": 32,
    },
}
POSE_NET_WIDTHS = (3, 3, 16, 16, 32, 32, 64, 64, 128)
POSE_NET_KERNELS = (3, 4, 3, 4, 3, 4, 3, 3)


def official_modules(small: bool) -> dict[str, Any]:
    """The official classes without memory for their parameters."""
    import torch
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    full = {
        "unet": {"num_attention_heads": (5, 10, 20, 20)},
        "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        "image_encoder": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 1024,
            "hidden_act": "gelu",
        },
    }
    sizes = {name: {**values, **(SMALL[name] if small else {})} for name, values in full.items()}
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "latent_channels": 4,
    }
    with torch.device("meta"):
        return {
            "unet": UNetSpatioTemporalConditionModel(**sizes["unet"]),
            "pose_net": pose_net(sizes["unet"].get("block_out_channels", (320,))[0]),
            "vae": AutoencoderKLTemporalDecoder(**sizes["vae"], **blocks),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes["image_encoder"])),
        }


def pose_net(out_channels: int) -> Any:
    """The paper's table 3 with the names of the released file."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for cin, cout, kernel in zip(POSE_NET_WIDTHS, POSE_NET_WIDTHS[1:], POSE_NET_KERNELS, strict=False):
        layers += [nn.Conv2d(cin, cout, kernel, padding=1), nn.SiLU()]
    module = nn.Module()
    module.conv_layers = nn.Sequential(*layers)
    module.final_proj = nn.Conv2d(POSE_NET_WIDTHS[-1], out_channels, 1)
    module.scale = nn.Parameter(torch.ones(1))
    return module


def random_tensor(key: str, shape: tuple[int, ...]) -> Any:
    """float16 values that depend on the key alone."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.empty(shape).normal_(0, 0.05, generator=generator).half()


def keys_and_shapes(module: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    for key, tensor in module.state_dict().items():
        if not key.endswith("position_ids"):
            yield key, tuple(tensor.shape)


def make(folder: Path, small: bool) -> dict[str, Any]:
    """MimicMotion_1-1.pth and an SVD folder without weights of its UNet, in fp16."""
    import torch
    from safetensors.torch import save_file

    modules = official_modules(small)
    state = {
        f"{name}.{key}": random_tensor(f"{name}.{key}", shape)
        for name in ("unet", "pose_net")
        for key, shape in keys_and_shapes(modules[name])
    }
    torch.save(state, folder / "MimicMotion_1-1.pth")
    del state
    for name, file in (("vae", "diffusion_pytorch_model"), ("image_encoder", "model")):
        (folder / "svd" / name).mkdir(parents=True)
        tensors = {key: random_tensor(f"{name}.{key}", shape) for key, shape in keys_and_shapes(modules[name])}
        save_file(tensors, folder / "svd" / name / f"{file}.fp16.safetensors", metadata={"format": "pt"})
    (folder / "svd" / "unet").mkdir()
    for name in ("unet", "vae"):
        modules[name].save_config(folder / "svd" / name)
    modules["image_encoder"].config.architectures = ["CLIPVisionModelWithProjection"]
    modules["image_encoder"].config.save_pretrained(folder / "svd" / "image_encoder")
    return {"parameters": sum(parameter.numel() for module in modules.values() for parameter in module.parameters())}


def check(folder: Path, small: bool) -> dict[str, Any]:
    """Compare every converted tensor with its source, laid out by rules of this file."""
    import numpy as np
    from flax import nnx

    from mimicmotion_jax.checkpoint import flat_params, load_network, read_config
    from mimicmotion_jax.convert.tables import TABLES

    config = read_config(folder / "ours")
    compared = different = 0
    for name, module in official_modules(small).items():
        shapes = dict(keys_and_shapes(module))
        state = nnx.state(load_network(folder / "ours", name, config))
        for path, array in flat_params(state).items():
            key = TABLES[name].torch_key(path)
            source = random_tensor(f"{name}.{key}", shapes.pop(key)).numpy()
            if source.ndim == 5:
                source = np.einsum("oitxy->tio", source)
            elif source.ndim == 4:
                source = np.einsum("oihw->hwio", source)
            elif source.ndim == 2 and not key.endswith("position_embedding.weight"):
                source = source.T
            compared += 1
            different += not np.array_equal(np.asarray(array), source.astype(array.dtype))
        different += len(shapes)
    return {"tensors": compared, "different": different}


def load(folder: Path, small: bool) -> dict[str, Any]:
    """Load all four networks and relate the growth of this process to their size."""
    import jax
    from flax import nnx

    from mimicmotion_jax.checkpoint import flat_params, load_network, read_config
    from mimicmotion_jax.models.build import NETWORKS

    config = read_config(folder / "ours")
    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    before = memory("VmRSS")
    start = time.perf_counter()
    states = {name: nnx.state(load_network(folder / "ours", name, config)) for name in NETWORKS}
    jax.block_until_ready(states)
    seconds = time.perf_counter() - start
    size = sum(array.nbytes for state in states.values() for array in flat_params(state).values())
    return {
        "seconds": seconds,
        "GiB": size / 2**30,
        "peak_growth_over_size": (memory("VmHWM") - before) / size,
        "peak_process_over_size": memory("VmHWM") / size,
    }


def strict(folder: Path, small: bool) -> dict[str, Any]:
    """Load the exported files into the official classes with strict=True and compare with the first sources."""
    import torch
    from safetensors.torch import load_file

    modules = official_modules(small)
    motion = torch.load(folder / "back" / "MimicMotion.pth", weights_only=True, mmap=True)
    compared = different = 0
    for name, module in modules.items():
        sources = [{key.removeprefix(f"{name}."): motion[key] for key in motion if key.startswith(f"{name}.")}]
        sources += [load_file(file) for file in (folder / "back" / "svd").glob(f"{name}/*.safetensors")]
        for tensors in filter(None, sources):
            module.load_state_dict(tensors, strict=True, assign=True)
            for key, shape in keys_and_shapes(module):
                compared += 1
                source = random_tensor(f"{name}.{key}", shape).to(tensors[key].dtype)
                different += not torch.equal(tensors[key], source)
    return {"tensors": compared, "different": different}


def memory(field: str) -> int:
    """A field of this process's status in bytes: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def run(command: list[str]) -> tuple[dict[str, float], str]:
    """Run a process to its end: seconds, peak resident GiB, standard output."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {os.waitstatus_to_exitcode(status)}")
    return {"seconds": time.perf_counter() - start, "peak_GiB": usage.ru_maxrss / 2**20}, output


STEPS = {"make": make, "check": check, "load": load, "strict": strict}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float16", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try this script")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(STEPS[args.step](args.folder, args.small)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        convert = str(REPOSITORY / "convert_weights.py")

        def step(name: str) -> dict[str, Any]:
            small = ["--small"] if args.small else []
            return json.loads(run([__file__, "--step", name, "--folder", temporary, *small])[1].splitlines()[-1])

        report: dict[str, Any] = {"dtype": args.dtype, "cpus": os.cpu_count(), **step("make")}
        sources = ["--svd", str(folder / "svd"), "--mimicmotion", str(folder / "MimicMotion_1-1.pth")]
        report["convert"], _ = run([convert, *sources, "--output", str(folder / "ours"), "--dtype", args.dtype])
        report["check"], report["load"] = step("check"), step("load")
        report["to_torch"], _ = run([convert, "--to-torch", str(folder / "ours"), "--output", str(folder / "back")])
        report["strict"] = step("strict")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
