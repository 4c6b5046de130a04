"""Export of our checkpoints to PyTorch, in the official layout and key names."""

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
    states the checkpoint's window size, so that converting back finds it. UNet and PoseNet are held in memory together.

    Args:
        checkpoint: one of ours, local or gs://.
        output: local folder to create.
        dtype: cast to this; None keeps every tensor's own, and conversion and export together change no bit.
        overwrite: replace an earlier output.
        progress: show a bar.

    Raises:
        InputError: damaged checkpoint, or an output that exists already or cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} must be one of {', '.join(DTYPES)}.")
    if "://" in str(output):
        raise InputError(f"{output} is remote; PyTorch checkpoints are written to a local folder.")
    config = read_config(checkpoint)
    leaves = {name: {leaf.path: leaf for leaf in network_leaves(name, config)} for name in TABLES}
    stored = {
        name: stored_groups(checkpoint, name, {path: leaf.shape for path, leaf in leaves[name].items()})
        for name in TABLES
    }
    sizes = {name: sum(_nbytes(leaf, dtype) for group in stored[name] for leaf in group.values()) for name in TABLES}
    total = sum(sizes.values())
    with (
        atomic_directory(output, marker=f"{SVD_FOLDER}/model_index.json", overwrite=overwrite) as temporary,
        tqdm(total=total, desc="Exporting", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        check_space(output, total + sizes["unet"])  # the UNet is in both places
        root = Path(temporary)
        _write_configs(root / SVD_FOLDER, config)
        motion: dict[str, torch.Tensor] = {}
        for name in sorted(TABLES, key=lambda name: TABLES[name].prefix is not None):  # what `motion` holds comes last
            table = TABLES[name]
            tensors = dict(_tensors(checkpoint, name, stored[name], leaves[name], dtype, bar))
            if table.folder is not None:
                dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
                variant = _VARIANTS.get(dtypes.pop(), "") if len(dtypes) == 1 else ""
                path = root / SVD_FOLDER / table.folder / f"{table.stems[0]}{variant}.safetensors"
                save_file(tensors, path, metadata={"format": "pt"})
            if table.prefix is not None:
                motion |= {f"{table.prefix}{key}": tensor for key, tensor in tensors.items()}
        torch.save(motion, root / MIMICMOTION_FILE)


def _nbytes(leaf: StoredTensor, dtype: str | None) -> int:
    return leaf.nbytes // np.dtype(leaf.dtype).itemsize * np.dtype(dtype or leaf.dtype).itemsize


def _tensors(
    checkpoint: epath.PathLike,
    name: str,
    groups: Sequence[Mapping[str, StoredTensor]],
    leaves: Mapping[str, Leaf],
    dtype: str | None,
    bar: tqdm,
) -> "Iterator[tuple[str, torch.Tensor]]":
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    for number, group in enumerate(groups):
        target = {
            path: jax.ShapeDtypeStruct(leaves[path].shape, np.dtype(stored.dtype), sharding=device)
            for path, stored in group.items()
        }
        arrays = read_group(checkpoint, name, number, target)
        for path in group:
            tensor = to_torch(arrays[path], leaves[path], dtype)
            yield leaves[path].key, tensor
            bar.update(tensor.nbytes)


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
