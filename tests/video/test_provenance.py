"""A video's origin is read back from every format, and nothing is read into other files."""

import hashlib

import av
import pytest
from video_clips import ramp, write_clip

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.provenance import provenance, read_provenance

SETTINGS = {"steps": 25, "guidance": 2.0, "model": {"window": 72, "name": "v1.1"}}


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_round_trip(tmp_path, name):
    # Longer than a GIF's block of 255 bytes, and not only ASCII.
    record = provenance(7, SETTINGS) | {"note": "ü舞 " * 100}
    with open_writer(tmp_path / name, 15, 128, 96, metadata=record, progress=False) as writer:
        writer.write(ramp(5))
    assert read_provenance(tmp_path / name) == record


def test_what_is_recorded():
    record = provenance(7, SETTINGS)
    assert record["seed"] == "7"
    assert record["software"].startswith("mimicmotion_jax ")
    assert "AI-generated" in record["description"]
    assert record["digital_source_type"].endswith("/trainedAlgorithmicMedia")
    text = '{"guidance":2.0,"model":{"name":"v1.1","window":72},"steps":25}'
    assert record["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert provenance(7, dict(reversed(SETTINGS.items()))) == record


def test_visible_to_other_programs(tmp_path):
    with open_writer(tmp_path / "a.mp4", 15, 128, 96, metadata={"seed": "7"}) as writer:
        writer.write(ramp(2))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == '{"seed": "7", "software": "mimicmotion_jax"}'


def test_other_files_have_none(tmp_path):
    assert read_provenance(write_clip(tmp_path / "a.mp4", ramp(3))) == {}
    with av.open(str(tmp_path / "b.mp4"), "w") as output:
        output.metadata["comment"] = "my holiday"
        stream = output.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        output.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(1, 64, 64)[0], format="rgb24")))
        output.mux(stream.encode(None))
    assert read_provenance(tmp_path / "b.mp4") == {}
    content = (tmp_path / "b.mp4").read_bytes()
    assert b"my holiday" in content
    (tmp_path / "latin.mp4").write_bytes(content.replace(b"my holiday", b"my caf\xe9 \xff."))  # not UTF-8
    assert read_provenance(tmp_path / "latin.mp4") == {}
    with pytest.raises(InputError, match="there is no file"):
        read_provenance(tmp_path / "missing.mp4")
