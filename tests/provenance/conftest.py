"""Local certificates in a folder of their own."""

import pytest

from mimicmotion_jax.provenance import certificates
from mimicmotion_jax.provenance.credentials import load_signer


@pytest.fixture(autouse=True)
def config_folder(tmp_path, monkeypatch):
    folder = tmp_path / "config" / "mimicmotion"
    monkeypatch.setenv(certificates.LOCAL_FOLDER, str(folder))
    load_signer.cache_clear()
    yield folder
    load_signer.cache_clear()
