"""Names of our parameters in the official PyTorch checkpoints, one short table per network.

Our attribute names follow the checkpoints, so a table holds only the differences. It serves both directions: every leaf
of the abstract network yields one torch key; a source must hold these keys, and an export writes them.
"""

import dataclasses
import re
from collections.abc import Callable

# What training frameworks put before a network's own names: Lightning, DeepSpeed and EMA at the front; DataParallel,
# torch.compile, FSDP and activation checkpointing anywhere.
_ANYWHERE = r"(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
_WRAPPERS = re.compile(rf"^(?:{_ANYWHERE}|model\.)+|(?<=\.){_ANYWHERE}")

# Parameters of layers. The dot excludes a parameter at the root: PoseNet's own `scale`.
_LAYER_LEAVES = (r"\.(kernel|scale|embedding)$", ".weight")


@dataclasses.dataclass(frozen=True)
class Table:
    """Differences between our names and the official ones, for one network.

    Attributes:
        renames: pattern and replacement, from our dotted path to the torch key, applied in order.
        aliases: pattern and replacement, from older torch keys to the current ones.
        ignored: torch keys that hold no weights.
        folder: folder of the SVD layout with config.json and the weights; None if SVD has no such network.
        stems: names of the weight files without variant and suffix: (safetensors, pickle).
        prefix: prefix of the keys in MimicMotion's file; None if the network is not in it.
    """

    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: frozenset[str] = frozenset()
    folder: str | None = None
    stems: tuple[str, str] = ("diffusion_pytorch_model", "diffusion_pytorch_model")
    prefix: str | None = None

    def torch_key(self, path: str) -> str:
        """Torch key of our leaf `path`, for example `up_blocks.0.resnets.1.spatial_res_block.conv1.kernel`."""
        for pattern, replacement in (*self.renames, _LAYER_LEAVES):
            path = re.sub(pattern, replacement, path)
        return path

    def canonical(self, key: str) -> str | None:
        """Current name of a torch key, which may be an older alias; None if the key is ignored."""
        for pattern, replacement in self.aliases:
            key = re.sub(pattern, replacement, key)
        return None if key in self.ignored else key


def unwrap_key(key: str) -> str:
    """Strip the prefixes of training frameworks from a torch key: `module.`, `model.`, `_orig_mod.` and the like."""
    return _WRAPPERS.sub("", key)


_ATTENTION_OUT = (r"\.to_out\.", ".to_out.0.")

TABLES = {
    "unet": Table(
        renames=(
            _ATTENTION_OUT,
            (r"\.(ff|ff_in)\.proj_in\.", r".\1.net.0.proj."),
            (r"\.(ff|ff_in)\.proj_out\.", r".\1.net.2."),
        ),
        folder="unet",
        prefix="unet.",
    ),
    # The activations between PoseNet's convolutions take the odd numbers.
    "pose_net": Table(
        renames=((r"^conv_layers\.(\d+)\.", lambda match: f"conv_layers.{2 * int(match[1])}."),),
        prefix="pose_net.",
    ),
    "vae": Table(
        renames=(_ATTENTION_OUT,),
        aliases=(
            (r"(\.attentions\.\d+)\.query\.", r"\1.to_q."),
            (r"(\.attentions\.\d+)\.key\.", r"\1.to_k."),
            (r"(\.attentions\.\d+)\.value\.", r"\1.to_v."),
            (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
        ),
        folder="vae",
    ),
    "image_encoder": Table(
        ignored=frozenset({"vision_model.embeddings.position_ids"}),
        folder="image_encoder",
        stems=("model", "pytorch_model"),
    ),
}
