"""Train the stand-ins for the networks of FVD and FID-VID on the synthetic world, and see what they notice.

    python benchmarks/stand_in.py [--scenes 1000] [--epochs 12]

Renders people who move freely, trains two networks to tell their kinds of motion apart, and writes their parameters
(benchmarks/card/stand_in.npz) and results (benchmarks/results/stand_in.json): how often they are right about people and
motions never shown, and the distances between true videos and spoilt ones. Takes a quarter of an hour on two cores.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from card import stand_in
from card.stand_in import HEIGHT, KINDS, TEMPORAL, WIDTH, WINDOW, StandIn
from flax import nnx
from tqdm import tqdm

from mimicmotion_jax.runtime.cpu_devices import available_cores
from mimicmotion_jax.synthetic.config import Split
from mimicmotion_jax.synthetic.motion import kind_of
from mimicmotion_jax.synthetic.world import Scene, make_scenes, render

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "stand_in.json"
FRAMES, RATES = 24, (15.0, 7.5)
_SEED, _BATCH, _LEARNING_RATE = 20261129, 16, 2e-3

Clips = tuple[np.ndarray, np.ndarray]
"""Frames [n, f, HEIGHT, WIDTH, 3], uint8, and kinds of motion [n]."""

SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same videos": lambda frames: frames,
    "frames in another order": lambda frames: frames[np.random.default_rng(0).permutation(len(frames))],
    "the first frame repeated": lambda frames: np.broadcast_to(frames[:1], frames.shape),
    "blurred": lambda frames: np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in frames]),
    "noise": lambda frames: np.clip(frames + np.random.default_rng(0).normal(0, 20, frames.shape), 0, 255).astype(
        np.uint8
    ),
}


def draw(count: int, split: Split) -> list[Scene]:
    """Draw scenes, half of them of each frame rate."""
    halves = (
        make_scenes(count // 2, _SEED + n, split, 2 * WIDTH, 2 * HEIGHT, FRAMES, rate, "free")
        for n, rate in enumerate(RATES)
    )
    return [scene for half in halves for scene in half]


def render_small(scene: Scene) -> np.ndarray:
    """Render a scene at twice the networks' size, and shrink it."""
    return stand_in.shrink(render(scene).frames)


def render_all(scenes: list[Scene], what: str) -> Clips:
    """Render on all cores."""
    with multiprocessing.get_context("spawn").Pool(available_cores()) as pool:
        frames = list(tqdm(pool.imap(render_small, scenes, 4), what, len(scenes), unit="scene"))
    return np.stack(frames), np.array([KINDS.index(kind_of(scene.motion, "free")) for scene in scenes])


def batches(clips: Clips, epochs: int) -> Iterator[Clips]:
    """Windows at random times, mirrored half of the time: no kind of motion has a side."""
    random = np.random.default_rng(0)
    for _ in range(epochs):
        for places in np.array_split(random.permutation(len(clips[0])), max(1, len(clips[0]) // _BATCH)):
            places = np.resize(places, _BATCH)
            starts = random.integers(FRAMES - WINDOW + 1, size=_BATCH)
            frames = clips[0][places[:, None], starts[:, None] + np.arange(WINDOW)]
            mirrored = random.random(_BATCH) < 0.5
            frames[mirrored] = frames[mirrored, ..., ::-1, :]
            yield frames, clips[1][places]


def train(name: str, clips: Clips, epochs: int) -> StandIn:
    """Train one network."""
    network = StandIn(TEMPORAL[name], nnx.Rngs(0))
    steps = epochs * max(1, len(clips[0]) // _BATCH)
    schedule = optax.cosine_onecycle_schedule(steps, _LEARNING_RATE)
    optimizer = nnx.Optimizer(network, optax.adamw(schedule, weight_decay=0.02), wrt=nnx.Param)

    @nnx.jit
    def step(network: StandIn, optimizer: nnx.Optimizer, frames: jax.Array, kinds: jax.Array) -> jax.Array:
        def loss(network: StandIn) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(network(frames), kinds).mean()

        value, grads = nnx.value_and_grad(loss)(network)
        optimizer.update(network, grads)
        return value

    with tqdm(total=steps, desc=name, unit="step") as bar:
        for frames, kinds in batches(clips, epochs):
            bar.set_postfix(loss=f"{float(step(network, optimizer, frames, kinds)):.3f}", refresh=False)
            bar.update()
    return network


def accuracy(network: StandIn, clips: Clips) -> float:
    """Share of videos whose kind of motion has the largest logit, the windows' mean."""
    features = stand_in.window_features(network, list(clips[0]))
    logits = np.asarray(network.classify(jnp.asarray(features))).reshape(len(clips[0]), -1, len(KINDS)).mean(1)
    return float(np.mean(np.argmax(logits, -1) == clips[1]))


def main() -> None:
    """Render, train, write and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000, metavar="N", help="to train on; default: 1000")
    parser.add_argument("--epochs", type=int, default=12, metavar="N", help="passes over them; default: 12")
    parser.add_argument("--weights", type=Path, default=stand_in.WEIGHTS, metavar="FILE.npz", help="to write")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE.json", help="the results")
    args = parser.parse_args()
    shown, unseen = (
        render_all(draw(count, split), f"rendering ({split})")
        for count, split in ((args.scenes, "train"), (max(4, args.scenes // 8), "test"))
    )
    stand_in.save({name: train(name, shown, args.epochs) for name in TEMPORAL}, args.weights)
    networks = stand_in.load(args.weights)
    half = len(unseen[0]) // 2
    # Neighbours in the list have one frame rate, so that both halves have all.
    truths, others = list(unseen[0][::2][:half]), list(unseen[0][1::2][:half])
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "jax": jax.__version__,
        "scenes": len(shown[0]),
        "epochs": args.epochs,
        "unseen_scenes": len(unseen[0]),
        "accuracy": {name: round(accuracy(network, unseen), 3) for name, network in networks.items()},
        "chance": round(float(np.bincount(unseen[1]).max() / len(unseen[1])), 3),
        "distance_to_true_videos": {
            what: _rounded(stand_in.distances([spoil(frames) for frames in truths], truths, networks))
            for what, spoil in SPOILT.items()
        }
        | {"other people and motions": _rounded(stand_in.distances(others, truths, networks))},
    }
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
