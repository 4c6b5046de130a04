"""Converted and trained checkpoints on disk: a folder of JSON files and, for each network, groups of tensors.

    DIR/config.json            sizes of the four networks and the window size (`ModelConfig`)
    DIR/sampling.json          default options of sampling (size, drawing, …), where training has set any
    DIR/manifest.json          origin of the weights: names, SHA-256, counts, dtype, window size
    DIR/params/index.json      tensors of each group, with shape and dtype
    DIR/params/checksums.json  CRC-32 of the files of each group (`checksums`)
    DIR/params/unet-00000 ...  one orbax checkpoint of a flat {"conv_in.kernel": array} per group

Groups bound the memory of conversion, which reads from PyTorch's files, permutes and writes one group at a time.
"""

from mimicmotion_jax.checkpoint.files import PACKAGED, is_packaged
from mimicmotion_jax.checkpoint.hub import push, resolve
from mimicmotion_jax.checkpoint.read import (
    fill_network,
    load_network,
    manifest_sha256,
    read_config,
    read_group,
    read_manifest,
    read_sampling,
    stored_groups,
    weights_sha256,
)
from mimicmotion_jax.checkpoint.write import (
    CheckpointWriter,
    flat_params,
    new_checkpoint,
    plan_groups,
    save_checkpoint,
)

__all__ = [
    "PACKAGED",
    "CheckpointWriter",
    "fill_network",
    "flat_params",
    "is_packaged",
    "load_network",
    "manifest_sha256",
    "new_checkpoint",
    "plan_groups",
    "push",
    "read_config",
    "read_group",
    "read_manifest",
    "read_sampling",
    "resolve",
    "save_checkpoint",
    "stored_groups",
    "weights_sha256",
]
