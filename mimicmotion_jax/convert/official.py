"""Conversion of the official PyTorch checkpoints to ours: find, check everything, then write group by group."""

import concurrent.futures
import contextlib
import logging
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
from mimicmotion_jax.convert.svd_files import WINDOW_KEY
from mimicmotion_jax.convert.tables import TABLES, unwrap_key
from mimicmotion_jax.convert.torch_files import Entry, TensorFile
from mimicmotion_jax.models.build import init_network
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig, VAEConfig
from mimicmotion_jax.runtime.atomic_files import check_space, sha256_file
from mimicmotion_jax.runtime.errors import InputError

NO_MIMICMOTION = "none"
POSE_NET_SEED = 0
# The releases differ in the window they were trained with, but in no key, shape or configuration.
RELEASED_WINDOWS = {
    "MimicMotion_1": 16,
    "MimicMotion_1-1": 72,
    # ComfyUI's files, UNet and PoseNet apart
    "MimicMotionMergedUnet_1-0-fp16": 16,
    "MimicMotionMergedUnet_1-1-fp16": 72,
}
SVD_WINDOWS = (14, 25)  # `num_frames` of SVD's own configurations, which says nothing about MimicMotion

Source = tuple[Weights, Mapping[str, str]]  # with the networks in them: name and prefix of the keys

logger = logging.getLogger(__name__)


def convert(
    svd: str,
    mimicmotion: str,
    output: epath.PathLike,
    *,
    pose_net: str | None = None,
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
        output: folder to create, local or gs://.
        pose_net: second file, of the PoseNet, where `mimicmotion` holds the UNet alone (ComfyUI's split files).
        dtype: "float32", "bfloat16" or "float16"; None keeps each tensor's own.
        window_size: frames that the model denoises together; None takes it from what the sources say, see
            `find_window_size`.
        overwrite: replace an earlier output.
        progress: show a bar.

    Raises:
        InputError: anything missing, damaged or not fitting; nothing is written then.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} must be one of {', '.join(DTYPES)}.")
    if pose_net is not None and mimicmotion == NO_MIMICMOTION:
        raise InputError("a PoseNet's file goes with a UNet's; give that one too, as --mimicmotion.")
    with new_checkpoint(output, overwrite=overwrite) as writer:
        repository = open_svd(svd)
        unet = read_official_config(repository, "unet")
        configs = _network_configs(repository, unet)
        if mimicmotion == NO_MIMICMOTION:
            motion = open_svd_weights(repository, TABLES["unet"], dtype)
            sources = [(motion, {"unet": ""})]
        else:
            motion = open_mimicmotion(mimicmotion)
            sources = _mimicmotion_sources(motion, pose_net)
        window_size, reason = find_window_size(window_size, unet, mimicmotion, motion)
        values = {**configs, "window_size": window_size}
        config = build_config(ModelConfig, values, source=f"the configuration of {repository.name}")
        sources += [
            (open_svd_weights(repository, TABLES[name], dtype), {name: ""}) for name in ("vae", "image_encoder")
        ]
        plan = _match_all(sources, config)
        total = sum(_nbytes(entry, dtype) for leaves in plan.values() for _, entry in leaves.values())
        check_space(output, total)
        files = [file for weights, _ in sources for file in weights.files]
        with _hashing(files) as hashes, tqdm(total=total, unit="B", unit_scale=True, disable=not progress) as bar:
            for name, leaves in plan.items():
                bar.set_description(f"Converting {name}")
                _write_network(writer, name, leaves, dtype, bar)
            origins = [_describe(file, hashes[file].result()) for file in files]
        origins[0]["window_size"] = f"{window_size}, {reason}"
        if "pose_net" not in plan:
            unet_dtype = next(iter(plan["unet"].values()))[1].dtype
            writer.add_group("pose_net", _fresh_pose_net(config, dtype or unet_dtype))
            origins.append({"name": f"PoseNet initialised with seed {POSE_NET_SEED}"})
        writer.finish(config, origins)


def find_window_size(given: int | None, unet: Mapping[str, Any], mimicmotion: str, motion: Weights) -> tuple[int, str]:
    """Find the number of frames that a model denoises together, and log it with its origin.

    In this order: the option; what `export_torch` noted; the name that a released file was saved under, which a renamed
    one still holds, or has; `num_frames` in the UNet's configuration. The last is refused where it is SVD's own: the
    released MimicMotion would silently work with another window than it was trained with.

    Args:
        given: the option; None if there is none.
        unet: content of unet/config.json.
        mimicmotion: the argument of `convert`.
        motion: the weights that it names.

    Returns:
        the window size, and where it comes from.

    Raises:
        InputError: it is not known.
    """
    if given is not None:
        return given, "as given"
    config = UNetConfig.from_official(unet)
    names = (*(file.saved_name for file in motion.files), Path(motion.name).stem)
    released = next((name for name in names if name in RELEASED_WINDOWS), None)
    if WINDOW_KEY in unet:
        window_size, reason = unet[WINDOW_KEY], f"from {WINDOW_KEY} in unet/config.json"
    elif released is not None:
        window_size, reason = RELEASED_WINDOWS[released], f"assumed because the file is or was named {released}"
    elif mimicmotion != NO_MIMICMOTION and config in [UNetConfig(num_frames=frames) for frames in SVD_WINDOWS]:
        raise InputError(
            f"{motion.name} does not say how many frames it denoises together, nor does SVD's configuration; give "
            "--window-size (16 for MimicMotion 1, 72 for MimicMotion 1.1)."
        )
    else:
        window_size, reason = config.num_frames, "from num_frames in unet/config.json"
    logger.warning("window size: %s frames, %s (--window-size changes it)", window_size, reason)
    return window_size, reason


def _network_configs(svd: Repository, unet_values: Mapping[str, Any]) -> dict[str, Any]:
    unet = UNetConfig.from_official(unet_values)
    return {
        "unet": unet,
        "pose_net": PoseNetConfig(out_channels=unet.block_out_channels[0]),
        "vae": VAEConfig.from_official(read_official_config(svd, "vae")),
        "image_encoder": CLIPConfig.from_official(read_official_config(svd, "image_encoder")),
    }


def _mimicmotion_sources(motion: Weights, pose_net: str | None) -> list[Source]:
    """Networks in MimicMotion's file, or in ComfyUI's two, where prefixes may be missing."""
    keys = [unwrap_key(entry.key) for entry in motion.entries]
    if pose_net is not None:
        second = open_mimicmotion(pose_net)
        return [(motion, {"unet": _prefix("unet", motion)}), (second, {"pose_net": _prefix("pose_net", second)})]
    if not any(key.startswith(("unet.", "pose_net.")) for key in keys) and "conv_in.weight" in keys:
        raise InputError(f"{motion.name} holds a UNet and no PoseNet; give the file of the PoseNet as --pose-net.")
    return [(motion, {name: TABLES[name].prefix or "" for name in ("unet", "pose_net")})]


def _prefix(name: str, weights: Weights) -> str:
    """Prefix of a network in a file of its own: that of MimicMotion's file, or none."""
    prefix = TABLES[name].prefix or ""
    return prefix if any(unwrap_key(entry.key).startswith(prefix) for entry in weights.entries) else ""


def _match_all(sources: Sequence[Source], config: ModelConfig) -> Plan:
    """Assign the tensors of each source to its networks; all misfits are one error."""
    plan: Plan = {}
    complaints = []
    for part, names in sources:
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
    """Compute the SHA-256 of files beside the conversion; a damaged file's future raises `InputError`."""
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
