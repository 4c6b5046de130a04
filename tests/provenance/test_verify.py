"""`mimicmotion verify`: one answer per file, exit statuses for scripts, and clear sentences for what is no video."""

import json

import numpy as np
import pytest
from PIL import Image
from video_clips import ramp, write_clip

from mimicmotion_jax.cli.verify import main
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.provenance.credentials import Origin, load_signer
from mimicmotion_jax.provenance.watermark import mark
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.provenance import provenance


def write(path, frames=None, metadata=None, signed=False):
    frames = ramp(3) if frames is None else frames

    def seal(finished):
        load_signer().sign(finished, Origin(image_sha256="b" * 64), provenance(7, {}), watermarked=True)

    kwargs = {"metadata": metadata, "progress": False, "seal": seal if signed else None}
    with open_writer(path, 15, frames.shape[2], frames.shape[1], **kwargs) as writer:
        writer.write(frames)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames", "frames/00001.png"])
def test_signed_files(tmp_path, capsys, name):
    write(tmp_path / name.split("/")[0], metadata=provenance(7, {}), signed=True)
    assert main([str(tmp_path / name), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["found"]
    assert found["credentials"]["state"] == "Valid"
    assert found["credentials"]["problems"] == ["signingCredential.untrusted"]
    assert found["credentials"]["origin"]["image_sha256"] == "b" * 64
    assert found["settings"] == provenance(7, {})
    assert found["watermark"]["found"] is False
    assert found["watermark"]["false_positive_rate"] > 0.01
    assert main([str(tmp_path / name)]) == 0
    out = capsys.readouterr().out
    for words in ("Valid (signingCredential.untrusted)", "trainedAlgorithmicMedia", "not found: score", "seed 7"):
        assert words in out


def test_a_changed_file_is_shown_as_such(tmp_path, capsys):
    path = write(tmp_path / "a.mp4", signed=True)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    main([str(path)])
    assert "Invalid" in capsys.readouterr().out


def test_exit_statuses(tmp_path, capsys):
    ours = write(tmp_path / "ours.mp4")  # the comment alone
    foreign = write_clip(tmp_path / "foreign.mp4", ramp(3))
    picture = tmp_path / "picture.png"
    Image.fromarray(ramp(1)[0]).save(picture)
    keypoints = tmp_path / "a.npz"
    save_keypoints(demo_motion(3, 15, 64, 64), keypoints, provenance(7, {}))
    text = tmp_path / "text.mp4"
    text.write_text("text")
    (tmp_path / "empty").mkdir()
    assert main([str(ours), str(keypoints)]) == 0
    assert main([str(foreign)]) == main([str(picture)]) == main([str(ours), str(foreign)]) == 1
    capsys.readouterr()
    for bad in (text, tmp_path / "missing.mp4", tmp_path / "empty"):
        assert main([str(bad), "--json", str(ours)]) == 2
        out, err = capsys.readouterr()
        assert [one["file"] for one in json.loads(out)] == [str(ours)]  # the others are looked at all the same
        assert err.count("\n") == 1
        assert err.startswith("error: ")


def test_a_marked_picture_is_found(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8)[0]
    smooth = np.asarray(Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC))
    Image.fromarray(mark(smooth[None])[0]).save(tmp_path / "a.png")
    Image.fromarray(smooth).save(tmp_path / "b.png")
    assert main([str(tmp_path / "a.png")]) == 0
    assert "found: score" in capsys.readouterr().out
    assert main([str(tmp_path / "b.png")]) == 1
