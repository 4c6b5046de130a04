"""Content credentials: another process reads them, changes show, and certificates are the user's or a local one."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chains import KEYS, certify, key_pem, write_chain
from cryptography import x509
from PIL import Image
from video_clips import ramp

import mimicmotion_jax
from mimicmotion_jax import MimicMotionPipeline, __version__
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import OutputOptions, PipelineOptions
from mimicmotion_jax.inference.output import Video
from mimicmotion_jax.inference.signs import input_sha256, is_marked, seal_of
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.provenance.credentials import ASSERTION, Origin, load_signer, read_credentials
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.provenance import provenance, read_provenance

ORIGIN = Origin("a" * 64, "b" * 64, "c" * 64)
READ = """
import c2pa, json, sys
for path in sys.argv[1:]:
    with c2pa.Reader(path) as reader:
        print(json.dumps(json.loads(reader.json()) | {"embedded": reader.is_embedded()}))
"""


def read_elsewhere(*paths):
    """Manifest stores as c2pa-python reads them in a process without our code."""
    run = subprocess.run([sys.executable, "-c", READ, *paths], cwd="/", check=True, capture_output=True, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def write_signed(path, signer=None, frames=None):
    def seal(finished):
        assert not path.exists()
        (signer or load_signer()).sign(finished, ORIGIN, provenance(7, {}))

    with open_writer(path, 15, 128, 96, metadata=provenance(7, {}), progress=False, seal=seal) as writer:
        writer.write(ramp(3) if frames is None else frames)
    return path


def item(size=(192, 256), **origin):
    return Prepared(
        np.zeros((*size, 3), np.uint8), np.zeros((4, *size, 3), np.uint8), None, 15, PipelineOptions(), **origin
    )


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4", "a.gif", "frames"])
def test_another_process_reads_them(tmp_path, name):
    path = write_signed(tmp_path / name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    assert len(files) == (3 if name == "frames" else 1)
    for store in read_elsewhere(*files):
        assert store["embedded"]
        assert store["validation_state"] == "Valid"
        # The only thing that c2pa has against it: nobody vouches for a local certificate.
        assert [status["code"] for status in store["validation_status"]] == ["signingCredential.untrusted"]
        manifest = store["manifests"][store["active_manifest"]]
        assert manifest["claim_generator_info"][0]["name"] == "mimicmotion_jax"
        assert "ingredients" not in manifest
        assert "thumbnail" not in manifest
        data = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
        (action,) = data["c2pa.actions.v2"]["actions"]
        assert action["action"] == "c2pa.created"
        assert action["softwareAgent"] == {"name": "mimicmotion_jax", "version": __version__}
        assert action["digitalSourceType"] == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
        assert data[ASSERTION] == {**provenance(7, {}), **vars(ORIGIN)}
        assert manifest["signature_info"]["alg"] == "Ed25519"
    # The pictures and the comment are those of the unsigned file, and no stray file is left.
    assert read_provenance(path) == provenance(7, {})
    assert {one.name for one in tmp_path.iterdir()} == {"config", name}
    unsigned = tmp_path / f"unsigned{path.suffix}"
    with open_writer(unsigned, 15, 128, 96, progress=False) as writer:
        writer.write(ramp(3))
    assert np.array_equal(*(np.stack(list(open_video(one, fps=15).frames())) for one in (path, unsigned)))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames/00001.png"])
def test_a_changed_file_is_found_out(tmp_path, name):
    whole = tmp_path / name.split("/")[0]
    write_signed(whole)
    assert read_credentials(whole).is_ours
    changed = tmp_path / name
    content = bytearray(changed.read_bytes())
    content[-200] ^= 1
    changed.write_bytes(content)
    found = read_credentials(whole)
    assert found.state == "Invalid"
    assert any(problem.endswith("Hash.mismatch") for problem in found.problems)
    assert not found.is_ours


def test_files_without_any(tmp_path):
    Image.fromarray(ramp(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "a.txt", "empty"):
        assert read_credentials(tmp_path / name) is None


def test_the_local_certificate(tmp_path, config_folder):
    write_signed(tmp_path / "a.gif")
    key, chain = config_folder / "private_key.pem", config_folder / "certificate.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert config_folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in config_folder.iterdir()} == {"private_key.pem", "certificate.pem"}
    leaf, authority = x509.load_pem_x509_certificates(chain.read_bytes())
    leaf.verify_directly_issued_by(authority)
    authority.verify_directly_issued_by(authority)
    # The next process signs with the same one.
    before = chain.read_bytes(), key.read_bytes()
    load_signer.cache_clear()
    write_signed(tmp_path / "b.gif")
    assert (chain.read_bytes(), key.read_bytes()) == before
    serials = [
        store["manifests"][store["active_manifest"]]["signature_info"]["cert_serial_number"]
        for store in read_elsewhere(tmp_path / "a.gif", tmp_path / "b.gif")
    ]
    assert serials == [str(leaf.serial_number)] * 2


@pytest.mark.parametrize("kind", KEYS)
def test_a_certificate_of_the_users(tmp_path, config_folder, kind):
    certificate, key = write_chain(tmp_path, kind)
    path = tmp_path / "a.mp4"
    frames = np.random.default_rng(0).random((3, 192, 256, 3), np.float32)
    Video(frames, item()).save(path, certificate=certificate, private_key=key)
    (store,) = read_elsewhere(path)
    assert store["validation_state"] == "Valid"
    signature = store["manifests"][store["active_manifest"]]["signature_info"]
    assert (signature["alg"], signature["common_name"], signature["issuer"]) == (kind, "Studio Ada", "Studio Ada Ltd")
    assert not config_folder.exists()


def test_unusable_certificates(tmp_path):
    certificate, key = write_chain(tmp_path)
    other = KEYS["Es256"]()
    (tmp_path / "other.pem").write_bytes(key_pem(other))
    (tmp_path / "locked.pem").write_bytes(key_pem(other, b"secret"))
    (tmp_path / "self.pem").write_bytes(certify("Me", other, "Me", other, authority=True))
    (tmp_path / "text.pem").write_text("not a certificate")
    cases = [
        (certificate, None, "belong together"),
        (None, key, "belong together"),
        (tmp_path / "missing.pem", key, "missing.pem"),
        (tmp_path / "text.pem", key, "holds no certificate"),
        (certificate, tmp_path / "text.pem", "holds no private key"),
        (certificate, tmp_path / "locked.pem", "without a password"),
        (certificate, tmp_path / "other.pem", "does not belong"),
        (tmp_path / "self.pem", tmp_path / "other.pem", "cannot sign"),
    ]
    for chain, secret, reason in cases:
        frames = (frame for frame in [pytest.fail])  # nothing is generated before the refusal
        video = Video(np.zeros((3, 192, 256, 3), np.float32), item())
        video._chunks = lambda frames=frames: frames
        with pytest.raises(InputError, match=reason) as error:
            video.save(tmp_path / "a.mp4", certificate=chain, private_key=secret)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "a.mp4").exists()


def test_which_videos_get_them_by_default(tmp_path):
    real, small = Origin("a" * 64), item((96, 128), origin=Origin("a" * 64))
    assert seal_of(item(origin=real), OutputOptions()) is not None
    assert is_marked(item(origin=real), OutputOptions())
    assert seal_of(item(origin=real), OutputOptions(credentials=False)) is None
    assert not is_marked(item(origin=real), OutputOptions(watermark=False))
    for unreal in (item(), small):  # random weights, and the drawings of the small model
        assert seal_of(unreal, OutputOptions()) is None
        assert not is_marked(unreal, OutputOptions())
        assert seal_of(unreal, OutputOptions(credentials=True)) is not None
        assert is_marked(unreal, OutputOptions(watermark=True))


def test_a_failing_signature_does_not_lose_the_video(tmp_path, caplog):
    """The certificate's key vanishes, so to say, while the video is made."""
    signer = load_signer(None, None)
    seal = seal_of(item(origin=Origin("a" * 64)), OutputOptions())
    object.__setattr__(signer._identity, "chain", b"damaged")
    with open_writer(tmp_path / "a.mp4", 15, 128, 96, seal=seal) as writer:
        writer.write(ramp(3))
    assert "without content credentials" in caplog.text
    assert read_credentials(tmp_path / "a.mp4") is None
    assert open_video(tmp_path / "a.mp4").num_frames == 3


def test_hashes_of_inputs(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"picture")
    assert input_sha256(tmp_path / "a.jpg") == hashlib.sha256(b"picture").hexdigest()
    assert input_sha256(str(tmp_path / "a.jpg")) == hashlib.sha256(b"picture").hexdigest()
    (tmp_path / "b.jpg").write_bytes(b"second")
    listing = subprocess.run(["sha256sum", "a.jpg", "b.jpg"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert input_sha256(tmp_path) == hashlib.sha256(listing).hexdigest()
    motion = demo_motion(3, 15, 64, 64)
    hashes = {input_sha256(value) for value in (motion, motion[:2], ramp(3), ramp(3)[:2], Image.fromarray(ramp(1)[0]))}
    assert len(hashes) == 5
    assert isinstance(motion, Keypoints)
    assert input_sha256(demo_motion(3, 15, 64, 64)) == input_sha256(motion)
    assert input_sha256(list(ramp(3))) == input_sha256([Image.fromarray(frame) for frame in ramp(3)])


def test_a_call_records_model_and_inputs(tmp_path):
    weights = Path(mimicmotion_jax.__file__).parent / "weights" / "small"
    Image.fromarray(ramp(1, 64, 64)[0]).save(tmp_path / "a.png")
    skeletons = np.zeros((3, 64, 64, 3), np.uint8)
    pipeline = MimicMotionPipeline.from_pretrained(weights)
    origin = pipeline.prepare(tmp_path / "a.png", skeletons).origin
    assert origin.model_sha256 == hashlib.sha256((weights / "manifest.json").read_bytes()).hexdigest()
    assert origin.image_sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert origin.motion_sha256 == input_sha256(skeletons)
    assert (
        MimicMotionPipeline.abstract(ModelConfig.tiny()).prepare(ramp(1, 64, 64)[0], skeletons).origin.model_sha256
        is None
    )
