"""LoRA files of PEFT and diffusers: low-rank factors of the UNet's layers, and PoseNet beside them if it was trained.

    DIR/pytorch_lora_weights.safetensors  "unet.<layer>.lora_A.weight" [rank, in], "….lora_B.weight" [out, rank]
    DIR/pose_net.safetensors              PoseNet as it is in the official release, "pose_net.<key>"

A layer computes W x + alpha / rank B A x. PEFT and diffusers keep alpha in different places, and some readers know
neither. Files written here therefore hold B times alpha / rank: alpha equals the rank, which is what every reader
assumes where none is stored. Reading knows all places: a key "<layer>.alpha", the header of diffusers' files, and
PEFT's adapter_config.json.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from mimicmotion_jax.checkpoint.files import read_object
from mimicmotion_jax.convert.engine import Leaf, network_leaves
from mimicmotion_jax.convert.tables import unwrap_key
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.lora import LowRank
from mimicmotion_jax.runtime.atomic_files import absolute_path, atomic_directory
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hub import HubRepository

WEIGHTS, PEFT_WEIGHTS, PEFT_CONFIG = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
)
POSE_NET = "pose_net.safetensors"
MAX_STRENGTH = 10.0

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PREFIXES = re.compile(r"^(?:base_model\.model\.)?(?:unet\.)?")
# With PEFT's name of the adapter, and as diffusers wrote it before PEFT.
_FACTOR = re.compile(r"(?P<layer>.+)\.lora(?:_(?P<name>A|B)(?:\.[^.]+)?|[._](?P<old>down|up))\.weight")
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_DIFFUSERS_METADATA = "lora_adapter_metadata"


class Lora(NamedTuple):
    """Content of a LoRA.

    Attributes:
        factors: alpha is multiplied in; by layer of the UNet, float32.
        pose_net: parameters of PoseNet by path, float32; empty if it was not trained.
        sha256: of the files.
    """

    factors: dict[str, LowRank]
    pose_net: dict[str, np.ndarray]
    sha256: str


def parse_lora(text: str) -> tuple[str, float]:
    """Split "FILE:strength" or "FILE", whose strength is 1; gs://, s3:// and drives of Windows keep their colons.

    Raises:
        InputError: a strength that is not a number from -10 to 10.
    """
    source, colon, strength = text.rpartition(":")
    if not colon or "/" in strength or "\\" in strength:
        return text, 1.0
    try:
        number = float(strength)
    except ValueError:
        number = math.nan
    return source, check_strength(number, f"{text!r}: the strength after the colon")


def check_strength(strength: float, name: str) -> float:
    """Return the strength of a LoRA.

    Raises:
        InputError: not a number from -10 to 10; `name` begins the sentence.
    """
    if not abs(strength) <= MAX_STRENGTH:
        raise InputError(f"{name} must be a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}, such as 0.8.")
    return strength


def read_lora(source: str | os.PathLike[str], config: ModelConfig) -> Lora:
    """Read a LoRA of this model, as written by `write_lora`, by PEFT or by diffusers.

    Args:
        source: a .safetensors file or a folder with one, local or gs://, or a repository of the Hugging Face hub.
        config: sizes of the model.

    Raises:
        InputError: no such file, an unreadable one, or a LoRA of another model.
    """
    path = _find(os.fspath(source))
    content, tensors, metadata = _read(path)
    factors = _match(path, tensors, _settings(path, metadata), config)
    if POSE_NET not in metadata:
        return Lora(factors, {}, hashlib.sha256(content).hexdigest())
    if not (path.parent / POSE_NET).exists():
        raise InputError(f"{path} was trained together with PoseNet; put its {POSE_NET} into the same folder.")
    beside, pose_net, _ = _read(path.parent / POSE_NET)
    return Lora(
        factors, _match_pose_net(path.parent / POSE_NET, pose_net, config), hashlib.sha256(content + beside).hexdigest()
    )


def write_lora(
    directory: epath.PathLike,
    factors: Mapping[str, LowRank],
    pose_net: Mapping[str, np.ndarray],
    config: ModelConfig,
    *,
    dtype: str = "float32",
) -> None:
    """Write a LoRA of linear layers that `read_lora`, PEFT and diffusers read; all processes call this together.

    Args:
        directory: local or gs://; an earlier LoRA in it is replaced.
        factors: by layer of the UNet, with alpha / rank multiplied into `b`.
        pose_net: all parameters of PoseNet by path; empty if it was not trained.
        config: sizes of the model.
        dtype: of the files.

    Raises:
        InputError: the folder is something else, or cannot be written.
    """
    leaves, tensors = {leaf.path: leaf for leaf in network_leaves("unet", config)}, {}
    for layer, (a, b) in factors.items():
        name = "unet." + leaves[f"{layer}.kernel"].key.removesuffix(".weight")
        tensors |= {f"{name}.lora_A.weight": np.asarray(a).T, f"{name}.lora_B.weight": np.asarray(b).T}
    whole = {
        f"pose_net.{leaf.key}": pose_net[leaf.path].reshape(leaf.permuted_shape).transpose(np.argsort(leaf.axes))
        for leaf in (network_leaves("pose_net", config) if pose_net else ())
    }
    note = {POSE_NET: "trained"} if pose_net else {}
    with atomic_directory(directory, marker=WEIGHTS, overwrite=True) as folder:
        if jax.process_index() == 0:
            if whole:
                (folder / POSE_NET).write_bytes(_serialise(whole, dtype, {}))
            (folder / WEIGHTS).write_bytes(_serialise(tensors, dtype, note))


def _serialise(tensors: Mapping[str, np.ndarray], dtype: str, metadata: dict[str, str]) -> bytes:
    cast = {key: np.ascontiguousarray(value.astype(dtype)) for key, value in tensors.items()}
    return safetensors.numpy.save(cast, {"format": "pt", **metadata})


def _find(source: str) -> epath.Path:
    """Path of the file with the factors; what lies beside it on the hub is fetched with it."""
    path = absolute_path(source)
    if path.is_file():
        return path
    if path.is_dir():
        for name in (WEIGHTS, PEFT_WEIGHTS):
            if (path / name).exists():
                return path / name
        raise InputError(f"{path} holds no LoRA: neither {WEIGHTS} nor {PEFT_WEIGHTS}; give the file itself.")
    if "://" in source or source.endswith(".safetensors") or not _HUB_ID.fullmatch(source):
        raise InputError(f"there is no LoRA {source}; give a .safetensors file, a folder with one or a hub id.")
    repository = HubRepository(source)
    for name in (WEIGHTS, PEFT_WEIGHTS):
        if (found := repository.get(name)) is not None:
            for beside in (PEFT_CONFIG, POSE_NET):
                repository.get(beside)
            return epath.Path(found)
    raise repository.missing(WEIGHTS)


def _read(path: epath.Path) -> tuple[bytes, dict[str, np.ndarray], dict[str, str]]:
    """Bytes of a safetensors file, its tensors in float32, and the texts in its header."""
    try:
        content = path.read_bytes()
        tensors = {
            key: np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"]).astype(np.float32)
            for key, tensor in safetensors.deserialize(content)
        }
    except OSError as error:
        raise InputError(f"the LoRA {path} cannot be read: {error.strerror or error}.") from None
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"{path} is not a LoRA: no safetensors file of floating-point numbers ({error}).") from None
    if bad := [key for key, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise InputError(f"{path} holds values that are not finite ({bad[0]}); take another version of it.")
    length = int.from_bytes(content[:8], "little")
    return content, tensors, json.loads(content[8 : 8 + length]).get("__metadata__", {})


def _settings(path: epath.Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Settings of PEFT's `LoraConfig`, if they are stored."""
    if path.name == PEFT_WEIGHTS and (path.parent / PEFT_CONFIG).exists():
        return read_object(path.parent / PEFT_CONFIG)
    stored = json.loads(metadata.get(_DIFFUSERS_METADATA, "{}"))
    return {key.removeprefix("unet."): value for key, value in stored.items()}


def _match(
    path: epath.Path, tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any], config: ModelConfig
) -> dict[str, LowRank]:
    """Factors by our layers, alpha multiplied in."""
    leaves = {leaf.key.removesuffix(".weight"): leaf for leaf in network_leaves("unet", config)}
    found: dict[str, dict[str, np.ndarray]] = {}
    alphas: dict[str, float] = {}
    unknown = []
    for key, tensor in tensors.items():
        name = unwrap_key(_PREFIXES.sub("", key))
        if name.endswith(".alpha") and tensor.size == 1 and name.removesuffix(".alpha") in leaves:
            alphas[name.removesuffix(".alpha")] = tensor.item()
        elif (factor := _FACTOR.fullmatch(name)) and factor["layer"] in leaves:
            part = factor["name"] or {"down": "A", "up": "B"}[factor["old"]]
            found.setdefault(factor["layer"], {})[part] = tensor
        else:
            unknown.append(key)
    if unknown or not found:
        example = f", among them {unknown[0]}," if unknown else ""
        raise InputError(
            f"{path} is not a LoRA of this model: {len(unknown)} of its {len(tensors)} tensors{example} belong to no "
            "layer of the UNet."
        )
    factors = {}
    for layer, parts in found.items():
        if parts.keys() != {"A", "B"}:
            raise InputError(f"{path} is damaged: {layer} has only one of lora_A and lora_B.")
        a, b = _to_ours(path, leaves[layer], parts["A"], parts["B"])
        scale = _scale(layer, a.shape[-1], alphas, settings)
        factors[leaves[layer].path.removesuffix(".kernel")] = LowRank(a, np.float32(scale) * b)
    return factors


def _to_ours(path: epath.Path, leaf: Leaf, a: np.ndarray, b: np.ndarray) -> LowRank:
    """Factors in our layout: [..., in, rank] and [rank, out]."""
    rank, shape = len(a), leaf.torch_shape
    expected = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
    if (a.shape, b.shape) != expected:
        raise InputError(
            f"{path} is a LoRA of another model: {leaf.key} has factors {a.shape} and {b.shape} where this model takes "
            f"{expected[0]} and {expected[1]}."
        )
    return LowRank(a.transpose(leaf.axes).reshape(*leaf.shape[:-1], rank), b.reshape(b.shape[:2]).T)


def _scale(layer: str, rank: int, alphas: Mapping[str, float], settings: Mapping[str, Any]) -> float:
    """Factor alpha / rank of a layer, as PEFT computes it."""
    patterns = settings.get("alpha_pattern") or {}
    matching = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer))
    alpha = alphas.get(layer, next(matching, settings.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _match_pose_net(path: epath.Path, tensors: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    leaves = network_leaves("pose_net", config)
    expected = {f"pose_net.{leaf.key}": leaf.torch_shape for leaf in leaves}
    if {key: tensor.shape for key, tensor in tensors.items()} != expected:
        raise InputError(f"{path} holds the PoseNet of another model; take the one that belongs to this LoRA.")
    return {leaf.path: tensors[f"pose_net.{leaf.key}"].transpose(leaf.axes).reshape(leaf.shape) for leaf in leaves}
