"""The official release's parts in PyTorch as functions that wait for the device: UNet, decode, generation, training.

diffusers' modules run as the release runs them: SDPA, the two branches of guidance one after the other, gradient
checkpointing at full size. Channels last is not set, because the release does not set it.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from official import Case, OfficialLoop, from_torch

from card.inputs import IDS, Inputs, pooled
from card.our_side import Run
from card.sizes import Size

__all__ = ["Theirs", "fill", "from_torch", "official_loop"]


def fill(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter values from the pool: kernels variance 1 / fan-in, norms about one, the rest about zero."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            value = torch.from_numpy(pooled(f"{seed} {name}", tuple(parameter.shape)))
            if parameter.ndim > 1:
                parameter.copy_(value / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * value + float(name.endswith(".weight")))
    return network.eval()


def official_loop(size: Size, device: str, dtype: torch.dtype) -> OfficialLoop:
    """Networks in PyTorch, filled from the pool."""
    case = Case(
        channels=size.channels,
        heads=size.heads,
        layers=size.layers,
        vae_channels=size.vae_channels,
        vae_layers=size.layers,
        context=size.context,
        time_dim=size.time_dim,
        frames=size.frames,
        height=size.height,
        width=size.width,
        options=size.options,
    )
    return OfficialLoop(case, device, dtype, fill)


class Theirs:
    """PyTorch's networks and the inputs of their parts.

    Args:
        size: sizes.
        dtype: None takes float16 on a card, as the release does, and float32 on a CPU.
        compiled: run the networks under torch.compile.
    """

    def __init__(self, size: Size, dtype: torch.dtype | None = None, compiled: bool = False):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        default = torch.float16 if self.device == "cuda" else torch.float32
        self.size, self.inputs, self.compiled = size, Inputs(size), compiled
        self.official = official_loop(size, self.device, dtype or default)

    def unet(self) -> Run:
        """Predict both branches of guidance for one window in one denoising step."""
        inputs = np.moveaxis(self.inputs.sample, -1, -3), self.inputs.context, np.repeat(IDS, 2, axis=0)
        sample, context, times = map(self._torch, inputs)
        network = self._compile(self.official.unet)

        @torch.no_grad()
        def run() -> np.ndarray:
            level = torch.tensor(0.3, device=self.device)
            branches = [
                network(sample[i : i + 1], level, context[i : i + 1, None], added_time_ids=times[i : i + 1]).sample
                for i in range(2)
            ]
            return np.moveaxis(_numpy(torch.cat(branches)), -3, -1)

        return run

    def decode(self, chunks: int = 1) -> Run:
        """Decode chunks of latents, one after the other."""
        latents = self.inputs.latents[: self.size.decode_chunk]
        given = np.stack([latents * (1 + n / 10) for n in range(chunks)])
        given, decode = self._torch(np.moveaxis(given, -1, -3)), self._compile(self.official.vae.decode)

        @torch.no_grad()
        def run() -> np.ndarray:
            return np.stack([np.moveaxis(_numpy(decode(x, num_frames=len(x)).sample), -3, -1) for x in given])

        return run

    def generation(self) -> Run:
        """Generate frames from reference and poses."""
        noise_aug = np.zeros(self.inputs.image.shape, np.float32)
        arrays = (self.inputs.image, self.inputs.poses, self.inputs.latents, noise_aug)
        given = [torch.from_numpy(np.moveaxis(array, -1, -3).copy()) for array in arrays]
        if self.compiled:
            # Block by block: a compiled UNet would leave out the hook with which the loop adds the poses.
            unet = self.official.unet
            for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
                block.compile()
        return lambda: np.moveaxis(_numpy(self.official(*given, self.size.options)[1]), -3, -1)

    def training(self, windows: int = 1) -> Run:
        """Compute all gradients of the mean square of the UNet's output, and return those of the first convolution."""
        run = self.gradients(windows)

        def first_convolution() -> np.ndarray:
            run()
            return _numpy(self.official.unet.conv_in.weight.grad).transpose(2, 3, 1, 0)

        return first_convolution

    def gradients(self, windows: int = 1) -> Callable[[], None]:
        """Function that computes the gradients of the UNet's parameters, into their `grad`."""
        network = self.official.unet
        if self.size.full:
            network.enable_gradient_checkpointing()
        inputs = np.moveaxis(self.inputs.sample, -1, -3), self.inputs.context, np.repeat(IDS, 2, axis=0)
        sample, context, times = (self._torch(array[:windows]) for array in inputs)
        called = self._compile(network.train())

        def run() -> None:
            network.zero_grad()
            level = torch.tensor(0.3, device=self.device)
            out = called(sample, level, context[:, None], added_time_ids=times).sample
            out.float().square().mean().backward()
            if self.device == "cuda":
                torch.cuda.synchronize()

        return run

    def _compile(self, network: Callable) -> Callable:
        return torch.compile(network) if self.compiled else network

    def _torch(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.official.dtype)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
