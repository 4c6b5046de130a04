"""Export of our checkpoints to PyTorch, in the official layout and key names."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from mimicmotion_jax.checkpoint import read_config, read_group, stored_groups
from mimicmotion_jax.checkpoint.files import StoredTensor
from mimicmotion_jax.convert.engine import DTYPES, Leaf, network_leaves, to_torch
from mimicmotion_jax.convert.svd_files import MODEL_INDEX, SCHEDULER, WINDOW_KEY, preprocessor
from mimicmotion_jax.convert.tables import TABLES
from mimicmotion_jax.convert.torch_writers import Add, Spec, pickle_writer, safetensors_writer
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.atomic_files import atomic_directory, check_space
from mimicmotion_jax.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

MIMICMOTION_FILE = "MimicMotion.pth"
SVD_FOLDER = "svd"
_VARIANTS = {"float16": ".fp16", "bfloat16": ".bf16"}


def export_torch(
    checkpoint: epath.PathLike,
    output: str | Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Write the official layout: `MimicMotion.pth` (UNet and PoseNet) and `svd/`, which diffusers loads as it is.

    The UNet in `svd/unet` is MimicMotion's as well, not SVD's own, which our checkpoints do not hold. Its configuration
    states the checkpoint's window size, so that converting back finds it.

    Args:
        checkpoint: one of ours, local or gs://.
        output: local folder to create.
        dtype: cast to this; None keeps every tensor's own, and conversion and export together change no bit.
        overwrite: replace an earlier output.
        progress: show a bar.

    Raises:
        InputError: damaged checkpoint, or an output that exists already or cannot be written.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} must be one of {', '.join(DTYPES)}.")
    if "://" in str(output):
        raise InputError(f"{output} is remote; PyTorch checkpoints are written to a local folder.")
    config = read_config(checkpoint)
    leaves = {name: {leaf.path: leaf for leaf in network_leaves(name, config)} for name in TABLES}
    stored = {name: _stored(checkpoint, name, leaves[name]) for name in TABLES}
    specs = {name: _specs(stored[name], leaves[name], dtype) for name in TABLES}
    total = sum(spec.nbytes for network in specs.values() for spec in network)
    with (
        atomic_directory(output, marker=f"{SVD_FOLDER}/model_index.json", overwrite=overwrite) as temporary,
        tqdm(total=total, desc="Exporting", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        check_space(output, total + sum(spec.nbytes for spec in specs["unet"]))  # the UNet is in both places
        root = Path(temporary)
        _write_configs(root / SVD_FOLDER, config)
        in_pickle = [name for name, table in TABLES.items() if table.prefix]
        pickle_specs = [
            Spec(f"{TABLES[name].prefix}{spec.key}", spec.shape, spec.dtype)
            for name in in_pickle
            for spec in specs[name]
        ]
        with pickle_writer(root / MIMICMOTION_FILE, pickle_specs) as add_to_pickle:
            for name in TABLES:
                with _svd_writer(root / SVD_FOLDER, name, specs[name]) as add_to_svd:
                    for tensor in _tensors(checkpoint, name, stored[name], leaves[name], dtype):
                        if name in in_pickle:
                            add_to_pickle(tensor)
                        add_to_svd(tensor)
                        bar.update(tensor.nbytes)


_Groups = Sequence[Mapping[str, StoredTensor]]


def _stored(checkpoint: epath.PathLike, name: str, leaves: Mapping[str, Leaf]) -> _Groups:
    return stored_groups(checkpoint, name, {path: leaf.shape for path, leaf in leaves.items()})


def _specs(groups: _Groups, leaves: Mapping[str, Leaf], dtype: str | None) -> list[Spec]:
    return [
        Spec(leaves[path].key, leaves[path].torch_shape, dtype or stored.dtype)
        for group in groups
        for path, stored in group.items()
    ]


@contextlib.contextmanager
def _svd_writer(svd: Path, name: str, specs: Sequence[Spec]) -> Iterator[Add]:
    """Write a network's file in `svd/`; PoseNet has none there, its tensors are dropped."""
    table = TABLES[name]
    if table.folder is None:
        yield lambda _: None
        return
    dtypes = {spec.dtype for spec in specs}
    variant = _VARIANTS.get(dtypes.pop(), "") if len(dtypes) == 1 else ""
    with safetensors_writer(svd / table.folder / f"{table.stems[0]}{variant}.safetensors", specs) as add:
        yield add


def _tensors(
    checkpoint: epath.PathLike, name: str, groups: _Groups, leaves: Mapping[str, Leaf], dtype: str | None
) -> "Iterator[torch.Tensor]":
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    for number, group in enumerate(groups):
        target = {
            path: jax.ShapeDtypeStruct(leaves[path].shape, np.dtype(stored.dtype), sharding=device)
            for path, stored in group.items()
        }
        arrays = read_group(checkpoint, name, number, target)
        for path in group:
            yield to_torch(arrays[path], leaves[path], dtype)


def _write_configs(svd: Path, config: ModelConfig) -> None:
    window = {"num_frames": config.window_size, WINDOW_KEY: config.window_size}
    files = {
        "model_index.json": MODEL_INDEX,
        "scheduler/scheduler_config.json": SCHEDULER,
        "feature_extractor/preprocessor_config.json": preprocessor(config.image_encoder.image_size),
        "unet/config.json": {**config.unet.to_official(), **window},
        "vae/config.json": config.vae.to_official(),
        "image_encoder/config.json": config.image_encoder.to_official(),
    }
    for name, content in files.items():
        path = svd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
