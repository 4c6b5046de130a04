"""Videos that break off, as training data: skipped with the reason, or used up to the damage."""

import pytest
from video_clips import ramp, ramp_index, write_clip

from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.runtime.errors import InputError


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("avi", "mpeg4"), ("mpegts", "libx264")])
def test_a_video_that_breaks_off(tmp_path, container, codec):
    options = {"movflags": "faststart"} if container == "mp4" else {}
    path = write_clip(tmp_path / "a.mp4", ramp(60), container=container, codec=codec, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    strict, tolerant = VideoFolder(tmp_path), VideoFolder(tmp_path, tolerate_truncation=True)
    (item,) = strict.items(progress=False)
    (tolerated,) = tolerant.items(progress=False)
    assert item.content != tolerated.content  # so that the cache does not mix them up
    if container != "mpegts":  # which announces no length
        with pytest.raises(InputError, match="is damaged or cut off"), strict.open(item):
            pass
    with tolerant.open(tolerated) as video:
        found = [ramp_index(frame) for frame in video.frames()]
    assert len(found) == video.num_frames
    assert 20 < len(found) < 60
    assert found[:20] == list(range(20))
