"""Comparison of a run with the one that its newest checkpoint belongs to."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from mimicmotion_jax.config import to_dict
from mimicmotion_jax.runtime.errors import InputError

if TYPE_CHECKING:
    from mimicmotion_jax.training.trainer import Task

# Options that may change between start and resume: they do not enter the parameters, or `identity` has their content.
_FREE = {
    *("output", "steps", "accumulation", "remat", "mesh", "log_every", "save_every", "keep", "keep_every"),
    *("sample_every", "num_samples", "validation", "num_validation", "sampling", "export_dtype"),
    *("checkpoint", "encoders", "distillation.teacher", "model", "trainable", "lora", "vae", "image_encoder"),
    *("data.dataset", "data.num_workers", "data.prefetch"),
}


def describe_run(task: "Task") -> dict[str, Any]:
    """Collect everything that enters a run, as JSON gives it back."""
    identity = {**task.identity(), "optimizer.ema_decay": task.config.optimizer.ema_decay is not None}
    run = {"identity": identity, "dataset": task.loader.contents, "config": to_dict(task.config)}
    return json.loads(json.dumps(run))


def check_resume(saved: Mapping[str, Any], now: Mapping[str, Any], directory: epath.Path) -> list[str]:
    """Compare two descriptions of a run; returns the options that changed what is learned from here on.

    Args:
        saved: description in the checkpoint.
        now: description of the run that is to continue from it.
        directory: of the run, for the message.

    Raises:
        InputError: the model or its encoders would be others.
    """
    if other := _differences(saved.get("identity", {}), now["identity"]):
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        raise InputError(
            f"{directory} holds a run that was started with other values of {', '.join(other[:5])}{more}: its model or "
            "encoders would change; use the values it was started with, or choose another output."
        )
    # With a decay, the number of steps enters the learning rate of every step.
    free = _FREE if now["config"]["optimizer"]["decay"] == "none" else _FREE - {"steps"}
    changed = [
        key for key in _differences(saved["config"], now["config"]) if free.isdisjoint((key, key.partition(".")[0]))
    ]
    return changed + ["the contents of data.dataset"] * (saved["dataset"] != now["dataset"])


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Dotted keys of nested dictionaries whose values are not equal; a key that an older release lacked is null."""
    flat_a, flat_b = _flatten(a), _flatten(b)
    return [key for key in flat_a | flat_b if flat_a.get(key) != flat_b.get(key)]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
