"""Content credentials (C2PA) in MP4, GIF and PNG: signed statements about a file's origin, written and read.

They say that a trained model made the file, with which software, and give SHA-256 hashes of the model's manifest, the
reference image and the motion, none of which they contain. The signature covers the whole file: any later change shows.
Programs that rewrite a file, as most platforms do, remove them.
"""

import functools
import importlib.util
import io
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimicmotion_jax import __version__
from mimicmotion_jax.runtime.errors import InputError, root_cause

INSTALL = 'pip install "mimicmotion-jax[provenance]"'
ASSERTION = "io.github.mimicmotion-jax.generation"
"""Label of our own assertion: hashes of the inputs, and the settings of the file's comment."""

_SOFTWARE = "mimicmotion_jax"
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_FORMATS = {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"}
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},  # a GIF's takes half a minute
    "verify": {"remote_manifest_fetch": False},  # nothing opens a connection
}


@dataclass(frozen=True)
class Origin:
    """Hashes of what a video was made from, as hex strings; None where there is none."""

    model_sha256: str | None = None
    """SHA-256 of the checkpoint's manifest, with LoRAs of its hash and theirs; None for random weights."""
    image_sha256: str | None = None
    """SHA-256 of the reference image's file, or of its pixels."""
    motion_sha256: str | None = None
    """SHA-256 of the motion's file or files, or of its values."""


@dataclass(frozen=True)
class Credentials:
    """Content credentials as they were read from a file.

    Attributes:
        state: validation state by c2pa-python: Trusted (the signer is on its trust list), Valid (intact, the signer is
            not on the list, as every local certificate) or Invalid.
        problems: C2PA's codes of failed checks, such as `assertion.dataHash.mismatch` for a changed file.
        software: name and version of the program that made the claim.
        signer: names in the certificate.
        source_types: IPTC's digital source types of the actions recorded.
        origin: content of our own assertion; empty for files of others.
    """

    state: str
    problems: tuple[str, ...]
    software: str
    signer: str
    source_types: tuple[str, ...]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_intact(self) -> bool:
        """Return True if the file is what was signed."""
        return self.state in ("Valid", "Trusted")

    @property
    def is_ours(self) -> bool:
        """Return True if they are intact and say that this software made the file."""
        return self.is_intact and self.software.startswith(_SOFTWARE)


def is_available() -> bool:
    """Return True if the extra `provenance` is installed."""
    return all(importlib.util.find_spec(name) for name in ("c2pa", "cryptography"))


class Signer:
    """Signs files with one certificate; made by `load_signer`."""

    def __init__(self, identity: Any):
        """Take an `Identity`."""
        self.description: str = identity.description
        """Words for the log: whose certificate it is."""
        self._identity = identity

    def sign(self, path: Path, origin: Origin, metadata: Mapping[str, str], watermarked: bool = False) -> None:
        """Put credentials into a finished MP4, GIF or PNG, or into every PNG of a folder.

        Args:
            path: replaced in one step for each file.
            origin: hashes of the inputs.
            metadata: settings as in the file's comment.
            watermarked: record that the frames carry the watermark.

        Raises:
            InputError: c2pa-python refuses the certificate or cannot write.
        """
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            self._sign_file(file, _manifest(file, origin, metadata, watermarked))

    def _sign_file(self, path: Path, manifest: dict[str, Any]) -> None:
        signed = path.with_name(f".signed-{path.name}")
        try:
            with path.open("rb") as source, signed.open("w+b") as destination:
                self._sign(manifest, _FORMATS[path.suffix.lower()], source, destination)
            os.replace(signed, path)
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, manifest: dict[str, Any], kind: str, source: Any, destination: Any) -> None:
        import c2pa

        identity = self._identity
        try:
            # Without a time stamp authority (None): nothing is sent anywhere.
            info = c2pa.C2paSignerInfo(identity.algorithm.encode(), identity.chain, identity.private_key, None)
            with (
                c2pa.Context.from_dict(_SETTINGS) as context,
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(json.dumps(manifest), context) as builder,
            ):
                builder.sign(signer, kind, source, destination)
        except c2pa.C2paError as error:
            raise InputError(
                f"cannot sign content credentials with {identity.description}: {root_cause(error)}; give a certificate "
                "chain for signing documents or e-mail (docs/generate.md), or credentials=false."
            ) from None

    def check(self) -> None:
        """Sign a tiny picture, so that a certificate which C2PA refuses is found before work begins.

        Raises:
            InputError: it is refused.
        """
        picture = io.BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "png")
        self._sign(_manifest(Path("check.png"), Origin(), {}, False), "image/png", picture, io.BytesIO())


@functools.lru_cache(8)
def load_signer(certificate: Path | None = None, private_key: Path | None = None) -> Signer:
    """Load a certificate and try it.

    Args:
        certificate: PEM chain; None takes the local one, which is made at the first call.
        private_key: PEM, without a password.

    Raises:
        InputError: the extra is not installed, or a file that is wrong.
    """
    if not is_available():
        raise InputError(f"content credentials need c2pa-python; {INSTALL}, or set credentials=false.")
    from mimicmotion_jax.provenance.certificates import load_identity

    signer = Signer(load_identity(certificate, private_key))
    signer.check()
    return signer


def read_credentials(path: Path) -> Credentials | None:
    """Read and validate the content credentials of a file, or of a folder's pictures (the worst of them).

    Returns:
        None if it has none, or is of a format that cannot have any.

    Raises:
        InputError: the extra is not installed.
    """
    if not is_available():
        raise InputError(f"reading content credentials needs c2pa-python; {INSTALL}.")
    if path.is_dir():
        found = [read_credentials(file) for file in sorted(path.glob("*.png"))]
        if not found or None in found:
            return None
        return min((one for one in found if one is not None), key=lambda one: one.is_intact)
    return _read(path)


def _read(path: Path) -> Credentials | None:
    import c2pa

    try:
        reader = c2pa.Reader.try_create(path, context=c2pa.Context.from_dict(_SETTINGS))
    except c2pa.C2paError:  # a format without credentials, or a damaged file, which its own reader explains
        return None
    if reader is None:
        return None
    with reader:
        store = json.loads(reader.json())
    active = store["manifests"][store["active_manifest"]]
    generator = (active.get("claim_generator_info") or [{"name": active.get("claim_generator", "")}])[0]
    signature = active.get("signature_info") or {}
    assertions = active.get("assertions", [])
    actions = [
        action
        for assertion in assertions
        if str(assertion["label"]).startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
    ]
    return Credentials(
        state=store.get("validation_state", "Invalid"),
        problems=tuple(status["code"] for status in store.get("validation_status", [])),
        software=f"{generator.get('name', '')} {generator.get('version', '')}".strip(),
        signer=", ".join(filter(None, [signature.get("common_name"), signature.get("issuer")])),
        source_types=tuple(action["digitalSourceType"] for action in actions if action.get("digitalSourceType")),
        origin=next((assertion["data"] for assertion in assertions if assertion["label"] == ASSERTION), {}),
    )


def _manifest(path: Path, origin: Origin, metadata: Mapping[str, str], watermarked: bool) -> dict[str, Any]:
    agent = {"name": _SOFTWARE, "version": __version__}
    created = {"action": "c2pa.created", "digitalSourceType": _SOURCE_TYPE, "softwareAgent": agent}
    actions = [created, *([{"action": "c2pa.watermarked.unbound", "softwareAgent": agent}] if watermarked else [])]
    hashes = {name: value for name, value in vars(origin).items() if value is not None}
    return {
        "claim_generator_info": [agent],
        "title": path.name,
        "instance_id": f"xmp:iid:{uuid.uuid4()}",
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": ASSERTION, "data": {**metadata, **hashes}},
        ],
    }
