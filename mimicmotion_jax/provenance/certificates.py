"""Certificates for content credentials: the user's own, or a local one that is made once and kept for this user.

C2PA asks for a chain. The local one is a small authority, whose key is thrown away, and a certificate that it issued.
It shows that files come from the same installation and have not been changed since; it does not show who made them,
because anybody can make such a chain. This module needs the extra `provenance`.
"""

import contextlib
import datetime
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError, root_cause

LOCAL_FOLDER = "MIMICMOTION_CONFIG"
"""Environment variable with the folder of the local certificate."""

_YEARS = 20
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Identity:
    """Certificate chain and private key, both PEM, and C2PA's name of the signature algorithm."""

    chain: bytes
    private_key: bytes
    algorithm: str
    description: str
    """Words for the log: whose certificate it is."""


def load_identity(certificate: Path | None = None, private_key: Path | None = None) -> Identity:
    """Load the user's certificate and key, or the local one, which is made if it is not there.

    Args:
        certificate: PEM file: the certificate, and below it those that lead to its authority.
        private_key: PEM file without a password: EC P-256 to P-521, RSA or Ed25519.

    Raises:
        InputError: only one of the two, a file that cannot be read, or a key that does not belong to the certificate.
    """
    if (certificate is None) != (private_key is None):
        raise InputError("certificate and private_key belong together; give both, or neither.")
    if certificate is None or private_key is None:
        folder = local_folder()
        return _read(*_local_files(folder), f"the local certificate in {folder}, which anybody could make")
    return _read(certificate, private_key, f"the certificate {certificate}")


def local_folder() -> Path:
    """Folder of the local certificate and key: `$MIMICMOTION_CONFIG`, else the user's folder for settings."""
    if LOCAL_FOLDER in os.environ:
        return Path(os.environ[LOCAL_FOLDER]).expanduser()
    base = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mimicmotion"


def _local_files(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of this user; both are in place when one of them is, whoever else makes them now."""
    chain, key = folder / "certificate.pem", folder / "private_key.pem"
    if not (chain.is_file() and key.is_file()):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = _make_chain()
        _write_private(key, made.private_key)
        write_file(chain, made.chain)
    return chain, key


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _read(certificate: Path, private_key: Path, description: str) -> Identity:
    try:
        chain, secret = certificate.read_bytes(), private_key.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}; check the path.") from None
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise InputError(f"{certificate} holds no certificate in PEM; it begins with BEGIN CERTIFICATE.") from None
    try:
        key = serialization.load_pem_private_key(secret, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{private_key} holds no private key in PEM without a password ({root_cause(error)})."
        ) from None
    if key.public_key() != first.public_key():
        raise InputError(f"the private key {private_key} does not belong to the certificate {certificate}.")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        algorithm = _CURVES[key.curve.name]
    else:
        raise InputError(f"{private_key} is no key for content credentials; use EC (P-256 to P-521), RSA or Ed25519.")
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(chain, plain, algorithm, description)


def _make_chain() -> Identity:
    """Make a local authority and a certificate by it for signing, with the extensions that C2PA demands.

    Ed25519 signs without random numbers, so that the same video gets the same bytes.
    """
    authority_key, key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    authority = _name("mimicmotion_jax local authority (made on this computer, vouches for nobody)")
    subject = _name("mimicmotion_jax user (not verified)")
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())

    def usage(signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs_certificates,
            key_cert_sign=signs_certificates,
            crl_sign=signs_certificates,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    def sign(owner: x509.Name, public: ed25519.Ed25519PublicKey, is_authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(owner)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
            .add_extension(usage(is_authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(identifier, critical=False)
        )
        if not is_authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        return builder.sign(authority_key, None).public_bytes(serialization.Encoding.PEM)

    chain = sign(subject, key.public_key(), False) + sign(authority, authority_key.public_key(), True)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(chain, secret, "ed25519", "")


def _name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mimicmotion_jax"),
            x509.NameAttribute(NameOID.COMMON_NAME, text[:64]),
        ]
    )
