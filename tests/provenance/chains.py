"""Certificate chains as users bring them, made with `cryptography` and not with our code."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS = {
    "Es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ps256": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def certify(subject, key, issuer, issuer_key, authority=False):
    def name(text):
        attributes = [(NameOID.ORGANIZATION_NAME, f"{text} Ltd"), (NameOID.COMMON_NAME, text)]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])

    now = datetime.datetime.now(datetime.UTC)
    flags = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = x509.KeyUsage(
        **dict.fromkeys((*flags, "decipher_only", "crl_sign"), False),
        digital_signature=not authority,
        key_cert_sign=authority,
    )
    builder = (
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.BasicConstraints(authority, None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm).public_bytes(serialization.Encoding.PEM)


def key_pem(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_chain(folder, kind="Es256"):
    """Certificate chain and key of "Studio Ada", issued by "Notary"."""
    key, authority_key = KEYS[kind](), KEYS[kind]()
    chain = certify("Studio Ada", key, "Notary", authority_key) + certify(
        "Notary", authority_key, "Notary", authority_key, authority=True
    )
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key_pem(key))
    return folder / "chain.pem", folder / "key.pem"
