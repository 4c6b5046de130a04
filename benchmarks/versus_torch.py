"""Speed compared with PyTorch: the same weights and inputs, alternating in one process.

    python benchmarks/versus_torch.py                                  middle-sized model, on the local CPU or GPU
    python benchmarks/versus_torch.py --size full --parts unet decode  the released model's size, for a GPU

PyTorch runs diffusers' modules as the official release does: float16 with SDPA on a GPU, float32 on a CPU, the two
branches of guidance one after the other, gradient checkpointing at full size. Ours computes in bfloat16 on a GPU and in
float32 on a CPU (`--devices 2` uses its cores as two devices). Each figure is the median of the rounds; a ratio above 1
means that ours is faster. `--compile` adds torch.compile.
"""

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two frameworks share the memory

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from official import Case, OfficialLoop

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu

OPTIONS = {"guidance_scale": 2.0, "noise_aug_strength": 0.0, "fps": 7, "motion_bucket_id": 127, "window_overlap": 2}
CASES = {
    # 62 million parameters, 24x32 latents, windows of 8 frames.
    "middle": Case(
        channels=(64, 128, 256, 256),
        heads=(1, 2, 4, 4),
        layers=2,
        vae_channels=(64, 128, 128, 128),
        vae_layers=2,
        context=256,
        time_dim=64,
        frames=8,
        height=192,
        width=256,
        options=OPTIONS | {"window_size": 8, "decode_chunk_size": 8, "num_inference_steps": 4},
    ),
    # SVD-XT.
    "full": Case(
        channels=(320, 640, 1280, 1280),
        heads=(5, 10, 20, 20),
        layers=2,
        vae_channels=(128, 256, 512, 512),
        vae_layers=2,
        context=1024,
        time_dim=256,
        frames=16,
        height=576,
        width=1024,
        options=OPTIONS | {"window_size": 16, "decode_chunk_size": 8, "num_inference_steps": 25},
    ),
}

Run = Callable[[], np.ndarray]


class Sides:
    """The same model in both frameworks; each method returns two functions that run one part, PyTorch's and ours."""

    def __init__(self, case: Case, compiled: bool):
        """Build PyTorch networks with random weights, and ours with the same weights."""
        self.case, self.gpu, self.compiled = case, torch.cuda.is_available(), compiled
        self.official = OfficialLoop(case, *(("cuda", torch.float16) if self.gpu else ()))
        ours = self.official.in_jax(num_devices=None)
        self.dtype = jnp.bfloat16 if self.gpu else jnp.float32
        networks = {name: getattr(ours, name) for name in ("unet", "vae", "image_encoder", "pose_net")}
        cast = {name: jax.tree.map(lambda x: x.astype(self.dtype), network) for name, network in networks.items()}
        self.ours = MimicMotionPipeline(ours.config, **cast, mesh=ours.mesh)
        self.devices = ours.mesh.size
        random = np.random.default_rng(0)
        self.shape = (case.frames, case.height // 8, case.width // 8, 4)
        self.image = random.integers(0, 256, (case.height, case.width, 3), np.uint8)
        self.poses = random.integers(0, 256, (case.frames, case.height, case.width, 3), np.uint8)
        self.latents = random.standard_normal(self.shape, np.float32)
        self.sample = random.standard_normal((2, *self.shape[:-1], 8), np.float32)
        self.context = random.standard_normal((2, case.context), np.float32)

    def unet(self) -> tuple[Run, Run]:
        """Predict both branches of guidance for one window in one denoising step."""
        ids = np.float32([[6, 127, 0]] * 2)
        sample, context, times = (self._torch(x) for x in (np.moveaxis(self.sample, -1, -3), self.context, ids))
        network = self._compile(self.official.unet)

        @torch.no_grad()
        def theirs() -> np.ndarray:
            noise_level = torch.tensor(0.3, device=sample.device)
            branches = [
                network(
                    sample[i : i + 1], noise_level, context[i : i + 1, None], added_time_ids=times[i : i + 1]
                ).sample
                for i in range(2)
            ]
            return np.moveaxis(self._numpy(torch.cat(branches)), -3, -1)

        # Sharded like a single window in the denoising loop.
        height, width = self.shape[1:3]
        positions = height * width // self.ours.config.unet.downscale**2
        mesh = sharding.window_mesh(self.ours.mesh, 1, 2, self.case.frames, positions)
        execution = sharding.sampling_execution(mesh)
        unet, given, *rest = jax.device_put((self.ours.unet, self.sample, self.context, ids), sharding.replicated(mesh))
        both = jax.jit(lambda unet, context, ids: unet.conditions(context, ids, self.case.frames))(unet, *rest)
        step = jax.jit(lambda unet, sample, conditions: unet(sample, jnp.full(2, 0.3), conditions, None, execution))
        return theirs, lambda: np.asarray(step(unet, given, both), np.float32)

    def decode(self) -> tuple[Run, Run]:
        """Decode one chunk of latents per device; PyTorch decodes them one after the other."""
        size = self.case.options["decode_chunk_size"]
        chunks = np.stack([self.latents[:size] * (1 + n / 10) for n in range(self.devices)])
        decode = self._compile(self.official.vae.decode)
        latents = self._torch(np.moveaxis(chunks, -1, -3))

        @torch.no_grad()
        def theirs() -> np.ndarray:
            return np.stack([np.moveaxis(self._numpy(decode(x, num_frames=size).sample), -3, -1) for x in latents])

        vae, given = self.ours.vae, jax.device_put(chunks, sharding.by_window(self.ours.mesh))
        ours = jax.jit(lambda vae, latents: vae.decode(latents))
        return theirs, lambda: np.asarray(ours(vae, given), np.float32)

    def generation(self) -> tuple[Run, Run]:
        """Generate frames from reference and poses."""
        noise_aug = np.zeros((self.case.height, self.case.width, 3), np.float32)
        arrays = (
            torch.from_numpy(np.moveaxis(x, -1, -3).copy()) for x in (self.image, self.poses, self.latents, noise_aug)
        )
        image, poses, noise, aug = arrays
        self._compile(self.official.unet, in_place=True)

        def theirs() -> np.ndarray:
            return np.moveaxis(self._numpy(self.official(image, poses, noise, aug, self.case.options)[1]), -3, -1)

        config = {"noise": self.latents, "fusion": "official", "keep_reference_frame": True, **self.case.options}
        config |= {"motion_kind": "skeletons", "progress": False}
        return theirs, lambda: self.ours(self.image, self.poses, **config).frames

    def training(self) -> tuple[Run, Run]:
        """Compute all gradients of the mean square of the UNet's output for two windows."""
        full = self.case.channels[0] >= 320
        network = self.official.unet
        if full:
            network.enable_gradient_checkpointing()
        ids = np.float32([[6, 127, 0]] * 2)
        sample, context, times = (self._torch(x) for x in (np.moveaxis(self.sample, -1, -3), self.context, ids))
        called = self._compile(network.train())

        def theirs() -> np.ndarray:
            network.zero_grad()
            noise_level = torch.tensor(0.3, device=sample.device)
            out = called(sample, noise_level, context[:, None], added_time_ids=times).sample
            out.float().square().mean().backward()
            return self._numpy(network.conv_in.weight.grad).transpose(2, 3, 1, 0)

        graph, params = nnx.split(self.ours.unet)
        data = math.gcd(self.devices, 2)
        mesh = sharding.training_mesh(data=data, fsdp=1, devices=self.ours.mesh.devices.flat[:data])
        execution = sharding.training_execution(mesh, remat=full)

        def loss(params: nnx.State, sample: jax.Array, context: jax.Array, ids: jax.Array) -> jax.Array:
            unet = nnx.merge(graph, params)
            out = unet(sample, jnp.full(2, 0.3), unet.conditions(context, ids, self.case.frames), None, execution)
            return jnp.mean(jnp.square(out.astype(jnp.float32)))

        step = jax.jit(jax.grad(loss))
        params = jax.device_put(params, sharding.replicated(mesh))
        given = jax.device_put((self.sample, self.context, ids), sharding.shard_samples(mesh))

        def ours() -> np.ndarray:
            grads = jax.block_until_ready(step(params, *given))
            return np.asarray(grads["conv_in"]["kernel"][...], np.float32)

        return theirs, ours

    def _compile(self, network: Callable, in_place: bool = False) -> Callable:
        if not self.compiled:
            return network
        if in_place:
            network.compile()
            return network
        return torch.compile(network)

    def _torch(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.official.device, self.official.dtype)

    def _numpy(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().float().cpu().numpy()


def measure(theirs: Run, ours: Run, rounds: int) -> dict[str, float]:
    """Measure seconds of both sides, after a first run that compiles and compares their results."""
    expected, found = theirs().astype(np.float64), ours().astype(np.float64)
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    seconds: dict[str, list[float]] = {"torch": [], "ours": []}
    for _ in range(rounds):
        for name, run in (("torch", theirs), ("ours", ours)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "torch_s": round(medians["torch"], 4),
        "ours_s": round(medians["ours"], 4),
        "ratio": round(medians["torch"] / medians["ours"], 3),
        "relative_difference": float(f"{error:.2g}"),
    }


def machine() -> dict[str, str | int]:
    """Describe the machine and the versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure all parts and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("unet", "decode", "generation", "training")
    parser.add_argument("--size", choices=CASES, default="middle")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds per part; default: 5")
    parser.add_argument("--compile", action="store_true", help="run PyTorch under torch.compile")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="devices to split the CPU's cores into; default: 1"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the results to this file")
    args = parser.parse_args()
    enable_compilation_cache()
    split_cpu(args.devices)
    sides = Sides(CASES[args.size], args.compile)
    command = " ".join(["python", *sys.argv])
    results = {
        "command": command,
        "size": args.size,
        "torch.compile": args.compile,
        "devices": sides.devices,
        **machine(),
        "parts": {},
    }
    with jax.default_matmul_precision(None if sides.gpu else "highest"):
        for part in args.parts:
            results["parts"][part] = measure(*getattr(sides, part)(), args.rounds)
            print(part, json.dumps(results["parts"][part]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
