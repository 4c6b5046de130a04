"""Check that the trainer learns: overfit one real clip and follow the loss over fixed noise levels.

    python benchmarks/overfit.py --video VIDEO [--steps 1500]

The clip is 8 frames of the video at 64x112 pixels, the model small and from scratch, its (random, frozen) VAE's latents
scaled to unit variance as SVD's are. The loss is evaluated on the same 64 draws of noise and noise level each time,
without drop-out. Writes benchmarks/results/overfit.json and docs/images/overfit.png.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.errors import InputError, run_script
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.objective import Draws, Encoded, Networks, draw, objective
from mimicmotion_jax.training.state import Params, init_state
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

ROOT = Path(__file__).resolve().parents[1]
NUM_FRAMES, INTERVAL, NUM_DRAWS, BATCH = 8, 2, 64, 4
LENGTH = (NUM_FRAMES - 1) * INTERVAL + 1  # one clip, and no other, fits into the video


def one_clip(video: Path, folder: Path) -> Path:
    """Prepare a dataset of the first `LENGTH` frames of `video`."""
    reader = open_video(video)
    frames = np.stack(list(reader.frames(stop=LENGTH)))
    if len(frames) < LENGTH:
        raise InputError(f"{video} has {len(frames)} frames, but {LENGTH} are needed.")
    (folder / "videos").mkdir()
    with open_writer(
        folder / "videos" / "clip.mp4", reader.rate, reader.width, reader.height, progress=False
    ) as writer:
        writer.write(frames)
    options = load_config(PrepareConfig, overrides=[f"min_frames={LENGTH}", "resolution=128"])
    prepare(VideoFolder(folder / "videos"), folder / "data", options)
    return folder / "data"


def make_config(dataset: Path, output: Path, steps: int, scaling_factor: float) -> TrainConfig:
    """Configure a run on that clip."""
    options = [
        *(f"output={output}", f"data.dataset={dataset}", f"steps={steps}", f"batch_size={BATCH}", "dtype=float32"),
        *(
            "data.width=64",
            "data.height=112",
            f"data.num_frames={NUM_FRAMES}",
            f"data.interval=[{INTERVAL},{INTERVAL}]",
        ),
        *(
            "data.reference_slot=false",
            "data.antialias=true",
            "remat=false",
            "sample_every=null",
            f"save_every={steps}",
        ),
        *("optimizer.learning_rate=2.0e-3", "optimizer.warmup_steps=100", "optimizer.decay=cosine"),
        *("optimizer.weight_decay=0", "optimizer.ema_decay=null"),
    ]
    tiny = ModelConfig.tiny()
    model = dataclasses.replace(tiny, vae=dataclasses.replace(tiny.vae, scaling_factor=scaling_factor))
    return dataclasses.replace(load_config(TrainConfig, overrides=options), model=model)


def make_evaluation(task: Diffusion, batch: Encoded):
    """Make a function from trained parameters to the mean loss over fixed draws."""
    config = dataclasses.replace(task.config.objective, dropout=0.0)
    index = jnp.arange(10**6, 10**6 + NUM_DRAWS, dtype=jnp.uint32)  # draws that training does not reach
    draws = draw(config, task.config.seed, index, batch.latents.shape[1:])
    clip = jax.tree.map(lambda x: x[:BATCH], batch)

    @jax.jit
    def losses(params: Params):
        def one(part: tuple[jax.Array, Draws]) -> jax.Array:
            index, draws = part
            networks = Networks(**task.template.networks(params))
            return objective(networks, clip._replace(index=index), draws, config)[0]

        parts = jax.tree.map(lambda x: x.reshape(-1, BATCH, *x.shape[1:]), (index, draws))
        return jax.lax.map(one, parts)

    return lambda params: float(losses(params | task.fixed).mean())


def train(config: TrainConfig, every: int) -> dict:
    """Train; returns the losses on the way and the time."""
    task = Diffusion(config)
    state = init_state(task.load(), config.optimizer, config.steps, task.mesh)
    evaluate = make_evaluation(task, task.next_batch())
    curve, start = [(0, evaluate(state.params))], time.perf_counter()
    for step in tqdm(range(1, config.steps + 1), desc="training", unit="step"):
        state, metrics = task.step(state, task.next_batch())
        if step % every == 0 or step == config.steps:
            curve.append((step, evaluate(state.params)))
            if not np.isfinite(float(metrics["loss"])):
                raise InputError(f"the loss is not finite at step {step}.")
    task.loader.close()
    return {"curve": curve, "seconds": round(time.perf_counter() - start, 1)}


def latent_scale(config: TrainConfig) -> float:
    """Return one over the standard deviation of the random VAE's latents of the clip."""
    task = Diffusion(config)
    task.load()
    latents = np.asarray(task.next_batch().latents) / task.model.vae.scaling_factor
    task.loader.close()
    return float(1 / latents.std())


def draw_curve(curve: list[tuple[int, float]], path: Path) -> None:
    """Draw the loss over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps, losses = zip(*curve, strict=True)
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.semilogy(steps, losses, color="#2a6f97", linewidth=2)
    axes.axhline(losses[0] / 10, color="#999999", linestyle=":", label="a tenth of the start")
    axes.set(
        xlabel="step",
        ylabel="loss over 64 fixed draws",
        title=f"One clip: {losses[0] / losses[-1]:.0f} times below the start",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Prepare, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    enable_compilation_cache()
    with tempfile.TemporaryDirectory() as folder:
        dataset = one_clip(args.video, Path(folder))
        scale = latent_scale(make_config(dataset, Path(folder) / "scale", args.steps, 1.0))
        config = make_config(dataset, Path(folder) / "run", args.steps, scale)
        result = train(config, every=max(args.steps // 60, 1))
    first, last = result["curve"][0][1], result["curve"][-1][1]
    record = {
        "command": f"python benchmarks/overfit.py --video {args.video.name} --steps {args.steps}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "loss_at_start": first,
        "loss_at_end": last,
        "ratio": first / last,
        **result,
    }
    (ROOT / "benchmarks" / "results" / "overfit.json").write_text(json.dumps(record) + "\n")
    draw_curve(result["curve"], ROOT / "docs" / "images" / "overfit.png")
    print(f"loss {first:.3f} -> {last:.4f}: {first / last:.1f} times lower", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)()
