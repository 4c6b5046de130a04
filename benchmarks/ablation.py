"""The paper's ablation (section 4.3, table 2) on the synthetic world: leave out one part of the method at a time.

    python benchmarks/ablation.py --encoders VAE_CHECKPOINT --dataset DIR [--seeds 0 1]
    python benchmarks/ablation.py --encoders VAE_CHECKPOINT --scenes 200 --i3d i3d_pretrained_400.pt
    python benchmarks/ablation.py … --row "no confidence" --seed 1 --work elsewhere

Rows differ only in what their name says: same seeds, data, steps, test sequences and noise. Hand enhancement and
confidence take a training each; the fusion of windows belongs to sampling, so those rows use the full model. The
test sequences are rendered here, several windows long, with people, motions and backgrounds that training never shows.

WORK holds datasets, trainings and videos (WORK/evaluations/ROW/index.html shows them). The results are written after
every row: run the same command again to go on, or to add seeds. --row makes one row and compares it with what the
results hold, which it leaves alone; in an empty WORK it makes it from nothing but the seeds.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import logging
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from card.ablation_table import FULL, SEAM, TRUE_SEAM, VARIANTS, Variant, format_table, summarise

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli.common import log_to_stderr
from mimicmotion_jax.config import build_config, load_config, to_dict, values_of
from mimicmotion_jax.data.dataset import read_info
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.evaluation.comparison import GENERATED, LABELS, RECONSTRUCTION, REPEAT
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.protocols import get_protocol
from mimicmotion_jax.evaluation.records import sha256_json
from mimicmotion_jax.evaluation.run import Request, evaluate
from mimicmotion_jax.pose.options import DrawOptions
from mimicmotion_jax.runtime.atomic_files import sha256_file, write_file
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.errors import InputError, run_script
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import SyntheticWorld, draw_scenes, named, write_test_set
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.trainer import train

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "ablation.json"
PROTOCOL = "synthetic"
TEST_SEED = 0
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "opencv-python", "scikit-image")
# Options of a TrainConfig that do not change what is learned; the sampling is recorded with the videos.
NOT_LEARNED = (
    *("output", "sampling", "sample_every", "num_samples"),
    *("log_every", "save_every", "keep", "keep_every"),
)


class Study:
    """Everything that the rows have in common; the constructor renders the test set.

    Args:
        config: of the trainings, but for seed, output and what variants change.
        work: folder of everything that is made on the way.
        world: of the test sequences, split included.
        num_sequences: how many there are.
        weights: files of metric networks by name ("resnet3d", "i3d").

    Raises:
        InputError: no dataset or encoders, or sequences that a single window holds.
    """

    def __init__(
        self, config: TrainConfig, work: Path, world: WorldConfig, num_sequences: int, weights: Mapping[str, Path]
    ):
        if world.num_frames <= config.data.num_frames:
            raise InputError(
                f"sequences of {world.num_frames} frames fit into one window of {config.data.num_frames}, where there "
                "is nothing to fuse; give more --frames."
            )
        self._config, self._work, self._weights = config, work, weights
        self._networks = {name: sha256_file(path) for name, path in weights.items()}
        source = config.checkpoint or config.encoders
        # Contents instead of paths.
        self._contents = {
            "dataset": read_info(config.data.dataset).contents,
            "encoders": source and checkpoint.manifest_sha256(source),
        }
        scenes = draw_scenes(world, num_sequences)
        names = list(named(scenes))
        self._test_set = work / f"test-{sha256_json(names)[:8]}"
        write_test_set(scenes, self._test_set)
        protocol = get_protocol(PROTOCOL)
        self.settings: dict[str, Any] = _plain(
            {
                "training": self._learned(self._train_config(FULL, 0)) | {"seed": None},
                "test_set": {"world": to_dict(world), "sequences": names},
                "protocol": {"name": protocol.name, "sha256": protocol.sha256},
                "sampling": to_dict(config.sampling) | {"seed": None, "fusion": None},
            }
        )
        """Everything that the numbers depend on, except for seed, variant and metric networks."""

    def is_current(self, row: Mapping[str, Any] | None) -> bool:
        """Return True if a row made with these settings has all the scores that the given networks allow."""
        return row is not None and self._networks.items() <= row["networks"].items()

    def train(self, variant: Variant, seed: int) -> int | None:
        """Train, unless that is done; return the number of the signal that ended it early, or None."""
        config = self._train_config(variant, seed)
        if (Path(config.output) / "model" / "manifest.json").is_file():
            return None
        return train(Diffusion(config))

    def score(self, variant: Variant, seed: int, command: str) -> dict[str, Any]:
        """Generate the test set with the trained model, score it, and return the row of the results."""
        training = self._train_config(variant, seed)
        sampling = to_dict(self._config.sampling) | {
            "seed": seed,
            "fusion": variant.fusion,
            **values_of(DrawOptions, training.data),
        }
        folder = f"{variant.name.replace(' ', '-')}-seed{seed}-{sha256_json([self.settings, seed])[:8]}"
        request = Request(
            protocol=PROTOCOL,
            data=self._test_set,
            output=self._work / "evaluations" / folder,
            checkpoint=Path(training.output) / "model",
            weights={name: [path] for name, path in self._weights.items()},
            command=command,
        )
        results = evaluate(request, build_config(EvaluateConfig, sampling))
        if results["left_out"]:
            raise InputError(f"sequences were left out: {results['left_out']}")
        seams = [sequence["seam_discontinuity"] for sequence in results["sequences"]]
        scores = results["summary"][GENERATED] | {
            SEAM: _mean([seam["generated"] for seam in seams]),
            TRUE_SEAM: _mean([seam["true"] for seam in seams]),
        }
        return {
            "name": variant.name,
            "seed": seed,
            "variant": dataclasses.asdict(variant),
            "scores": scores,
            "baselines": {column: results["summary"][column] for column in (REPEAT, RECONSTRUCTION)},
            "training_sha256": sha256_json(self._learned(training)),
            "weights_sha256": results["checkpoint"]["weights_sha256"],
            "sampling": results["options"],
            "sampling_sha256": results["options_sha256"],
            "sequences_sha256": sha256_json(results["sequences"]),  # their videos' hashes and scores among it
            "networks": self._networks,
            "notes": results["notes"],
            "made": circumstances(command),
        }

    def _train_config(self, variant: Variant, seed: int) -> TrainConfig:
        values = to_dict(self._config) | {"seed": seed, "sample_every": None}
        values["data"]["confidence"] = variant.confidence
        values["objective"]["hand_weight"] = variant.hand_weight
        config = build_config(TrainConfig, values)
        name = f"hands{variant.hand_weight:g}-{variant.confidence}-seed{seed}-{sha256_json(self._learned(config))[:8]}"
        return dataclasses.replace(config, output=str(self._work / "runs" / name))

    def _learned(self, config: TrainConfig) -> dict[str, Any]:
        """Options that a training's result depends on."""
        values = {key: value for key, value in to_dict(config).items() if key not in NOT_LEARNED}
        for where, key in ((values, "checkpoint"), (values, "encoders"), (values["data"], "dataset")):
            where[key] = where[key] and self._contents["dataset" if key == "dataset" else "encoders"]
        return values


def circumstances(command: str) -> dict[str, Any]:
    """Record command, date, machine and versions."""
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Format the table as Markdown, with the settings needed to read it."""
    baselines = {LABELS[name]: scores for name, scores in report["rows"][0]["baselines"].items()}
    settings, made = report["settings"], [row["made"] for row in report["rows"]]
    world, training = settings["test_set"]["world"], settings["training"]
    dates = sorted({entry["date"] for entry in made})
    return "\n".join(
        [
            "# Ablation on the synthetic world",
            "",
            *format_table(report["table"], baselines),
            "",
            "Mean ± sample standard deviation over the seeds, which draw parameters, data order and noise anew; rows "
            "of one seed share them. Rows in italics need no trained model: nothing moves, and true frames through the "
            "VAE. Seam discontinuity is the frame difference where windows change over that elsewhere; the modes of "
            "fusion have their seams at different frames, so each is to be read against the true videos there.",
            "",
            f"{training['steps']} steps of {training['batch_size']} clips of {training['data']['num_frames']} frames; "
            f"{len(settings['test_set']['sequences'])} test sequences of {world['num_frames']} frames at "
            f"{world['width']}x{world['height']}, world seed {world['seed']}; protocol {settings['protocol']['name']} "
            f"({settings['protocol']['sha256'][:12]}). {'; '.join(sorted({entry['machine'] for entry in made}))}; "
            f"{dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'}. Everything else is in ablation.json.",
            "",
            f"    {made[-1]['command']}",
            "",
        ]
    )


def read_report(path: Path, settings: Mapping[str, Any]) -> dict[tuple[int, str], dict[str, Any]]:
    """Read existing rows by seed and name; raises `InputError` if they have other settings."""
    try:
        report = json.loads(path.read_text())
        found, wanted = dict(_flatten(report["settings"])), dict(_flatten(settings))
        differing = [key for key in found | wanted if found.get(key, ...) != wanted.get(key, ...)]
        rows = {(row["seed"], row["name"]): row for row in report["rows"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no file of ours; choose another --output.") from None
    if differing:
        raise InputError(
            f"{path} holds results of other settings ({', '.join(differing[:5])}), which do not compare; choose "
            "another --output, or remove it."
        )
    return rows


def write_report(path: Path, settings: Mapping[str, Any], rows: Mapping[tuple[int, str], dict[str, Any]]) -> None:
    """Write the JSON and, beside it, the table in Markdown."""
    order = list(VARIANTS)
    made = [rows[key] for key in sorted(rows, key=lambda key: (key[0], order.index(key[1])))]
    report = {"settings": settings, "table": summarise(made), "rows": made}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    write_file(path.with_suffix(".md"), markdown(report).encode())


def read_train_config(args: argparse.Namespace) -> TrainConfig:
    """Read the training configuration, changed by the command line; renders the dataset if asked to."""
    given = {"encoders": args.encoders, "data.dataset": args.dataset, "steps": args.steps}
    if args.scenes is not None:
        given["data.dataset"] = args.work / "dataset"
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    config = load_config(TrainConfig, args.config, overrides)
    if not config.data.dataset:
        raise InputError("there is nothing to learn from; give --dataset DIR, or --scenes N to have it rendered.")
    if args.scenes is not None:
        width, height = config.data.width, config.data.height
        world = build_config(WorldConfig, {"width": width, "height": height}, source="the synthetic world")
        values: dict[str, Any] = {"resolution": min(width, height)}
        if config.data.encodings:
            values |= {"encode": config.checkpoint or config.encoders, "size": (width, height)}
        options = build_config(PrepareConfig, values, source="the dataset's configuration")
        prepare(SyntheticWorld(args.scenes, world), config.data.dataset, options)
    return config


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    config, work = ROOT / "configs" / "train_synthetic.yaml", ROOT / "outputs" / "ablation"
    parser.add_argument("--config", type=Path, default=config, metavar="FILE", help="of the trainings")
    parser.add_argument("--encoders", metavar="DIR", help="checkpoint with VAE and CLIP; default: as in the config")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--dataset", metavar="DIR", help="from prepare_data.py; default: as in the config")
    data.add_argument("--scenes", type=int, metavar="N", help="render a dataset of N scenes instead")
    parser.add_argument("--steps", type=int, metavar="N", help="of every training; default: as in the config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="S", help="default: 0 1")
    parser.add_argument("--num-sequences", type=int, default=20, metavar="N", help="of the test set; default: 20")
    parser.add_argument("--frames", type=int, metavar="N", help="of a test sequence; default: three windows'")
    parser.add_argument("--resnet3d", type=Path, metavar="FILE", help="resnet-50-kinetics.pth, for FID-VID")
    parser.add_argument("--i3d", type=Path, metavar="FILE", help="i3d_pretrained_400.pt, for FVD")
    parser.add_argument("--work", type=Path, default=work, metavar="DIR", help="default: outputs/ablation")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE.json", help="the results")
    parser.add_argument("--row", choices=VARIANTS, metavar="NAME", help=f"this one alone: {', '.join(VARIANTS)}")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of --row")
    return parser.parse_args()


def main() -> int:
    """Make the missing rows; returns 0, or 128 plus the number of the signal that stopped it."""
    args = parse_args()
    log_to_stderr(libraries=logging.ERROR)
    enable_compilation_cache()
    config = read_train_config(args)
    frames = 3 * config.data.num_frames if args.frames is None else args.frames
    values = {"seed": TEST_SEED, "width": config.data.width, "height": config.data.height, "num_frames": frames}
    world = build_config(WorldConfig, values | {"split": "test"}, source="the test set")
    weights = {name: path for name in ("resnet3d", "i3d") if (path := getattr(args, name)) is not None}
    study = Study(config, args.work, world, args.num_sequences, weights)
    rows, command = read_report(args.output, study.settings), shlex.join(["python", *sys.argv])

    wanted = [(seed, name) for seed in args.seeds for name in VARIANTS] if args.row is None else [(args.seed, args.row)]
    for key in wanted:
        seed, name = key
        if args.row is None and study.is_current(rows.get(key)):
            continue
        print(f"{name}, seed {seed}", file=sys.stderr)
        if (stopped_by := study.train(VARIANTS[name], seed)) is not None:
            return 128 + stopped_by
        row = study.score(VARIANTS[name], seed, command)
        if args.row is not None:
            print(json.dumps({"now": row, "recorded": rows.get(key)}, indent=2))
            return 0
        rows[key] = row
        write_report(args.output, study.settings, rows)
    print(args.output.with_suffix(".md").read_text())
    return 0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(value: Any) -> Any:
    """Convert tuples to lists, as JSON does."""
    return json.loads(json.dumps(value, allow_nan=False))


if __name__ == "__main__":
    run_script(main)()
