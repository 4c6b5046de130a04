"""The paper's ablation on a card: nine trainings of equal length, as long as the time allows, and five rows per seed.

Hand enhancement and confidence take a training each, the fusion of windows belongs to sampling. Trainings go on from
the small model of the package, which follows poses already: from random parameters the minutes of a card do not get
there. All share one compiled step: what a variant changes are its inputs. Every row is written at once; another run
goes on with those that are missing.
"""

import dataclasses
import functools
import math
import os
import time
from pathlib import Path

import numpy as np

from card import ablation_pictures, ablation_scores, small_scores
from card.ablation_page import row_name, write_page
from card.ablation_setup import Setup, Trained
from card.ablation_sizes import ABLATION_SIZES, SEEDS
from card.ablation_table import FULL, VARIANTS, Variant
from card.measuring import jax_peak
from card.results import Results, Row
from card.runner import DEADLINE
from card.small_clock import Clock
from card.small_files import write_picture
from card.small_networks import temporal_convolutions
from mimicmotion_jax.checkpoint import manifest_sha256
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache

RUNS = "ABLATION_RUNS"
"""Environment variable: number of runs that share the work, 1 (the default), 3 or 9; so much longer is a training."""

_UNHURRIED = 3600.0  # seconds that a run has if nobody set an end
_MARGIN = 1.05  # of the time that is planned
# Rows that need no training of their own follow the one whose networks they use.
_ORDER = sorted(VARIANTS.values(), key=lambda variant: (variant.hand_weight < FULL.hand_weight, variant.ticks[1] == ""))
_TRAININGS = len(SEEDS) * len({(variant.hand_weight, variant.confidence) for variant in _ORDER})


def train(results: Results, part: str, size: str) -> None:
    """Make the rows that are missing, as far as the time goes."""
    enable_compilation_cache()
    seconds = float(os.environ.get(DEADLINE) or time.time() + _UNHURRIED) - time.time()
    clock = Clock(seconds, ABLATION_SIZES[size].reserve)
    with temporal_convolutions():
        setup = Setup(ABLATION_SIZES[size], clock)
        results.row(part, "plan", functools.partial(make_plan, setup))
        if "failed" in (plan := results.parts[part]["plan"]):
            return
        if plan["vae"] != _vae(setup):
            raise ValueError(f"the rows that are there used the VAE of {plan['vae']}; name that one, or give --again")
        rows = Rows(setup, plan["steps"])
        for seed in SEEDS:
            for variant in _ORDER:
                results.row(part, row_name(variant.name, seed), functools.partial(rows.make, variant, seed))
                write_page(results, part)
            rows.draw(seed, results.path.parent)


def fit_steps(seconds: float, step_seconds: float, runs: int) -> int:
    """Number of steps of each training, if one run has so many seconds for its share of all trainings."""
    return max(1, int(seconds / math.ceil(_TRAININGS / runs) / step_seconds / _MARGIN))


def make_plan(setup: Setup) -> Row:
    """Fix the number of steps of all trainings, those of later runs included, and score what needs no training."""
    size, scenes = setup.size, setup.scenes
    frames = np.stack([scene["frames"] for scene in scenes])
    chunks = frames.reshape(-1, size.encode_scenes * size.scene_frames, *frames.shape[2:])
    latents = np.concatenate([np.asarray(setup.encode(chunk)[0]) for chunk in chunks])
    latents = latents.reshape(*frames.shape[:2], *latents.shape[1:])
    networks = setup.networks(setup.initial[SEEDS[0]])
    decoded = small_scores.decode(setup.model, networks, latents, setup.sampling(FULL))
    baselines = {"reference repeated": small_scores.repeat_first(scenes), "VAE alone": decoded}
    baselines = {name: ablation_scores.score(videos, scenes) for name, videos in baselines.items()}
    runs = int(os.environ.get(RUNS, "1"))
    scoring = math.ceil(len(SEEDS) * len(VARIANTS) / runs) * setup.score_seconds
    steps = fit_steps(setup.clock.training_end - time.monotonic() - scoring, setup.step_seconds, runs)
    shares = {name: float(np.mean([scene[name] for scene in scenes])) for name in ("mistaken", "hidden_elbow")}
    return {
        "steps": steps if size.max_steps is None else min(steps, size.max_steps),
        "step_ms": round(1e3 * setup.step_seconds, 2),
        "score_s": round(setup.score_seconds, 2),
        "clips": setup.config.batch_size,
        "window": setup.model.window_size,
        "scenes": int(np.ptp(setup.encoded.kept())),
        "size": f"{size.width}x{size.height}",
        "parameters": sum(x.size for x in setup.initial[SEEDS[0]].values()),
        "vae": _vae(setup),
        "goes_on": setup.goes_on,
        "test_set": {"sequences": len(frames), "frames": frames.shape[1]} | shares,
        "baselines": baselines,
    }


class Rows:
    """Rows of the table, with the networks and videos of those that were made.

    Args:
        setup: what they share.
        steps: of every training.
    """

    def __init__(self, setup: Setup, steps: int):
        self._setup, self._steps = setup, steps
        self._trained: dict[tuple[float, str, int], Trained] = {}
        self._videos: dict[tuple[int, str], np.ndarray] = {}

    def make(self, variant: Variant, seed: int) -> Row:
        """Train unless a row before has done that, generate the test sequences and score them."""
        setup, key = self._setup, (variant.hand_weight, variant.confidence, seed)
        needed = setup.score_seconds + (0 if key in self._trained else self._steps * setup.step_seconds)
        if needed > setup.clock.left:
            return {"missing": f"it takes {needed:.0f} s and {setup.clock.left:.0f} are left; run it again to go on"}
        if key not in self._trained:
            self._trained[key] = setup.train(variant, seed, self._steps, row_name(variant.name, seed))
        params, history = self._trained[key]
        videos = self._videos[seed, variant.name] = setup.generate(params, variant, seed)
        plan = setup.plan(variant, videos.shape[1])
        scores = ablation_scores.score(videos, setup.scenes, plan)
        row = {"name": variant.name, "seed": seed, "variant": dataclasses.asdict(variant), "scores": scores}
        return row | {"history": history} | jax_peak()

    def draw(self, seed: int, folder: Path) -> None:
        """Draw pictures like the paper's figures 5, 7, 8 and 9, of the first seed, once this run has all its rows."""
        videos = {name: self._videos[seed, name] for name in VARIANTS if (seed, name) in self._videos}
        if seed != SEEDS[0] or len(videos) < len(VARIANTS):
            return
        setup, scenes = self._setup, self._setup.scenes
        fused = {name: videos[name] for name, variant in VARIANTS.items() if all(variant.ticks[:2])}
        seams = {name: setup.seams(VARIANTS[name], videos[name].shape[1]) for name in fused}
        hands = {name: videos[name] for name in ("full", "no hand enhancement")}
        first = {name: those[0] for name, those in fused.items()}
        pictures = {
            "mistakes": ablation_pictures.mistakes_strip(scenes, videos),
            "seams": ablation_pictures.slices_strip(scenes, fused),
            "hands": ablation_pictures.hands_strip(scenes, hands),
            "differences": ablation_pictures.differences_plot(scenes[0]["frames"], first, seams),
        }
        for name, picture in pictures.items():
            write_picture(folder / f"ablation-{name}.png", picture)


def _vae(setup: Setup) -> str:
    return manifest_sha256(setup.source)[:12]
