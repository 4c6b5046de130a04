"""From the official PyTorch checkpoints to ours: find, check everything, then write group by group."""

import concurrent.futures
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from flax import nnx
from tqdm import tqdm

from mimicmotion_jax.checkpoint import CheckpointWriter, flat_params, new_checkpoint, plan_groups
from mimicmotion_jax.config import build_config
from mimicmotion_jax.convert.engine import DTYPES, Expected, Leaf, Plan, match, network_leaves, to_ours
from mimicmotion_jax.convert.sources import (
    Repository,
    Weights,
    open_mimicmotion,
    open_svd,
    open_svd_weights,
    read_official_config,
)
from mimicmotion_jax.convert.tables import TABLES
from mimicmotion_jax.convert.torch_files import Entry, TensorFile
from mimicmotion_jax.models.build import init_network
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig, VAEConfig
from mimicmotion_jax.runtime.atomic_files import check_space, sha256_file
from mimicmotion_jax.runtime.errors import InputError

NO_MIMICMOTION = "none"
# Frames that each released file was trained on; no configuration tells.
WINDOW_SIZES = {"MimicMotion_1.pth": 16, "MimicMotion_1-1.pth": 72}
POSE_NET_SEED = 0


def convert(
    svd: str,
    mimicmotion: str,
    output: epath.PathLike,
    *,
    dtype: str | None = None,
    window_size: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Convert the official checkpoints: UNet and PoseNet from MimicMotion's file, VAE and CLIP from SVD.

    Args:
        svd: folder in diffusers layout, or its id on the hub; its own UNet weights are read only without MimicMotion.
        mimicmotion: file (.pth, .pt, .bin, .safetensors or an index of shards), `owner/name[/file]` on the hub, or
            "none": SVD's own UNet and a freshly initialised PoseNet, which is where training starts.
        output: folder to make, local or gs://.
        dtype: "float32", "bfloat16" or "float16"; None keeps each tensor's own.
        window_size: frames that the checkpoint denoises together; None knows it from the name of a released file, or
            else takes the UNet configuration's `num_frames`.
        overwrite: replace an earlier output.
        progress: show a bar.

    Raises:
        InputError: anything missing, damaged or not fitting; nothing is written then.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}.")
    with new_checkpoint(output, overwrite=overwrite) as writer:
        repository = open_svd(svd)
        configs = _network_configs(repository)
        if mimicmotion == NO_MIMICMOTION:
            motion = open_svd_weights(repository, TABLES["unet"], dtype)
            from_motion = {"unet": ""}
        else:
            motion = open_mimicmotion(mimicmotion)
            from_motion = {name: TABLES[name].prefix for name in ("unet", "pose_net")}
        if window_size is None:
            window_size = WINDOW_SIZES.get(Path(motion.name).name, configs["unet"].num_frames)
        values = {**configs, "window_size": window_size}
        config = build_config(ModelConfig, values, source=f"the configuration of {repository.name}")
        weights = [motion, *(open_svd_weights(repository, TABLES[name], dtype) for name in ("vae", "image_encoder"))]
        plan = _match_all(weights, [from_motion, {"vae": ""}, {"image_encoder": ""}], config)
        total = sum(_nbytes(entry, dtype) for leaves in plan.values() for _, entry in leaves.values())
        check_space(output, total)
        files = [file for part in weights for file in part.files]
        with _hashing(files) as hashes, tqdm(total=total, unit="B", unit_scale=True, disable=not progress) as bar:
            for name, leaves in plan.items():
                bar.set_description(f"Converting {name}")
                _write_network(writer, name, leaves, dtype, bar)
            sources = [_describe(file, hashes[file].result()) for file in files]
        if "pose_net" not in plan:
            unet_dtype = next(iter(plan["unet"].values()))[1].dtype
            writer.add_group("pose_net", _fresh_pose_net(config, dtype or unet_dtype))
            sources.append({"name": f"PoseNet initialised with seed {POSE_NET_SEED}"})
        writer.finish(config, sources)


def _network_configs(svd: Repository) -> dict[str, Any]:
    unet = UNetConfig.from_official(read_official_config(svd, "unet"))
    return {
        "unet": unet,
        "pose_net": PoseNetConfig(out_channels=unet.block_out_channels[0]),
        "vae": VAEConfig.from_official(read_official_config(svd, "vae")),
        "image_encoder": CLIPConfig.from_official(read_official_config(svd, "image_encoder")),
    }


def _match_all(weights: Sequence[Weights], networks: Sequence[Mapping[str, str]], config: ModelConfig) -> Plan:
    """Fill the networks (name: prefix) that each of the weights holds; complain about all of them at once."""
    plan: Plan = {}
    complaints = []
    for part, names in zip(weights, networks, strict=True):
        expected = [Expected(name, prefix, network_leaves(name, config)) for name, prefix in names.items()]
        try:
            plan |= match(part.name, part.entries, expected)
        except InputError as error:
            complaints.append(str(error))
    if complaints:
        raise InputError(" ".join(complaints))
    return plan


def _write_network(
    writer: CheckpointWriter, name: str, leaves: Mapping[str, tuple[Leaf, Entry]], dtype: str | None, bar: tqdm
) -> None:
    for group in plan_groups({path: _nbytes(entry, dtype) for path, (_, entry) in leaves.items()}):
        writer.add_group(name, _read_group([leaves[path] for path in group], dtype))
        bar.update(sum(_nbytes(leaves[path][1], dtype) for path in group))


def _read_group(leaves: Sequence[tuple[Leaf, Entry]], dtype: str | None) -> dict[str, np.ndarray]:
    by_file: dict[TensorFile, list[str]] = defaultdict(list)
    for _, entry in leaves:
        by_file[entry.file].append(entry.key)
    # Mapped pages count as memory until the last tensor of a file is dropped, so none of them outlives the group.
    tensors = {file: file.read(keys) for file, keys in by_file.items()}
    return {leaf.path: to_ours(tensors[entry.file][entry.key], leaf, dtype) for leaf, entry in leaves}


def _fresh_pose_net(config: ModelConfig, dtype: str) -> dict[str, np.ndarray]:
    network = init_network("pose_net", config, POSE_NET_SEED)
    return {path: np.asarray(array.astype(dtype)) for path, array in flat_params(nnx.state(network)).items()}


def _nbytes(entry: Entry, dtype: str | None) -> int:
    return entry.size * np.dtype(dtype or entry.dtype).itemsize


@contextlib.contextmanager
def _hashing(files: Sequence[TensorFile]) -> Iterator[Mapping[TensorFile, "concurrent.futures.Future[str]"]]:
    """sha256 of the files, computed beside the conversion; of one that is damaged its result is the `InputError`."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        try:
            yield {file: executor.submit(_verified_sha256, file) for file in files}
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _verified_sha256(file: TensorFile) -> str:
    file.verify()
    return sha256_file(file.path)


def _describe(file: TensorFile, sha256: str) -> dict[str, Any]:
    return {"name": file.name, "sha256": sha256, "bytes": file.path.stat().st_size, "keys": len(file.entries)}
