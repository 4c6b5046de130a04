"""Our checkpoints on disk: config.json, manifest.json and, for each network, a row of orbax checkpoints.

    DIR/config.json            sizes of the four networks and the window size (`ModelConfig`)
    DIR/sampling.json          options that sampling begins with (size, drawing, …), where training has set any
    DIR/manifest.json          where the weights came from: names, sha256, counts, dtype, window size
    DIR/params/index.json      which tensors lie in which group, with shape and dtype
    DIR/params/checksums.json  of the files of each group, to know damage from weights (`checksums`)
    DIR/params/unet-00000 ...  one orbax checkpoint of a flat {"conv_in.kernel": array} per group

A network is cut into groups so that neither writing nor reading ever holds more than one group besides the result.
"""

from mimicmotion_jax.checkpoint.hub import push, resolve
from mimicmotion_jax.checkpoint.read import (
    fill_network,
    load_network,
    load_params,
    manifest_sha256,
    read_config,
    read_group,
    read_manifest,
    read_sampling,
    stored_groups,
)
from mimicmotion_jax.checkpoint.write import (
    CheckpointWriter,
    flat_params,
    new_checkpoint,
    plan_groups,
    save_checkpoint,
)

__all__ = [
    "CheckpointWriter",
    "fill_network",
    "flat_params",
    "load_network",
    "load_params",
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
]
