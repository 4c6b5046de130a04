"""Checkpoints by name: local folders, gs://, those of the package, and repositories of the Hugging Face hub; and
uploading them."""

import os
import re

from etils import epath

from mimicmotion_jax.checkpoint.files import CONFIG, MANIFEST, SAMPLING, locate
from mimicmotion_jax.checkpoint.read import read_manifest
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hub import HubRepository, fetch_folder, push_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COLLAPSED_URL = re.compile(r"(gs|s3|az|hf):/(?!/)")  # what pathlib makes of gs://
_FILES = (MANIFEST, CONFIG, SAMPLING, "params/*")


def resolve(source: str | os.PathLike[str]) -> epath.Path:
    """Find a converted checkpoint; one of the hub is fetched into the hub's local cache.

    Args:
        source: a folder, a URL such as gs://bucket/folder, the hub id "owner/name" of a converted checkpoint, or
            "small" or "small-student", which are in the package. A folder of this name goes first.

    Returns:
        the folder, absolute or gs://; the content of a local or remote one is not checked.

    Raises:
        InputError: neither a folder nor a repository of the hub that holds a converted checkpoint, or the hub cannot
            be reached.
    """
    name = _COLLAPSED_URL.sub(r"\1://", os.fspath(source), count=1)
    path = locate(name)
    if "://" in name or path.exists() or not _HUB_ID.fullmatch(name) or name.startswith("."):
        return path
    repository = HubRepository(name)
    if repository.get(MANIFEST) is None:
        error = repository.missing(MANIFEST)
        raise InputError(f"{error} A PyTorch checkpoint must be converted first (`mimicmotion convert --help`).")
    return epath.Path(fetch_folder(name, _FILES))


def push(
    directory: str | os.PathLike[str],
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload a MimicMotion checkpoint",
) -> str:
    """Upload a checkpoint to the Hugging Face hub, with a model card if it has none; `resolve` fetches it by its id.

    Args:
        directory: a checkpoint in a local folder.
        repo_id: "owner/name" of the repository, which is created if there is none.
        private: visibility of a new repository; None takes the owner's default.
        token: of the hub; None takes the one of `hf auth login` or HF_TOKEN.
        commit_message: first line of the commit.

    Returns:
        the commit's URL.

    Raises:
        InputError: no checkpoint there, one that is not on this machine, an id the hub does not allow, no permission,
            or a failed upload.
    """
    path = absolute_path(os.fspath(directory))
    if "://" in str(path):
        raise InputError(f"{path} is not on this machine; copy it to a local folder, then upload that.")
    card = model_card(path, repo_id)
    return push_folder(path, repo_id, card=card, private=private, token=token, commit_message=commit_message)


def model_card(directory: epath.PathLike, repo_id: str) -> str:
    """Markdown that describes a checkpoint on the hub: use, sizes, and where its weights came from.

    Raises:
        InputError: no checkpoint there.
    """
    manifest = read_manifest(directory)
    networks = "\n".join(
        f"| {name} | {network.get('parameters', 0):,} | {network.get('dtype', '')} |"
        for name, network in manifest["networks"].items()
    )
    sources = "\n".join(f"- {source.get('name')} (SHA-256 {source.get('sha256')})" for source in manifest["sources"])
    return f"""---
library_name: mimicmotion-jax
pipeline_tag: image-to-video
tags: [jax, flax, mimicmotion, pose-guided-video-generation]
---
# {repo_id.rpartition("/")[2]}
Weights of MimicMotion for `mimicmotion_jax`: a reference image and a driving motion in, a video out.
The model denoises {manifest["window_size"]} frames together.

```python
from mimicmotion_jax import MimicMotionPipeline

pipe = MimicMotionPipeline.from_pretrained("{repo_id}")
```

| network | parameters | dtype |
| --- | --- | --- |
{networks}

Sources of the weights:
{sources or "- not recorded"}
"""
