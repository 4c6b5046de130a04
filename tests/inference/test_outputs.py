"""Videos as they are written, under the names that people give."""

import numpy as np
import pytest
from video_clips import click_track, ramp, write_clip

from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import OutputOptions, PipelineOptions
from mimicmotion_jax.inference.output import write_videos
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.video.decode import open_video


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4"])
def test_sound_comes_along_whatever_the_case_of_the_name(tmp_path, name):
    source = write_clip(tmp_path / "source.mp4", ramp(25, 64, 64), sound=click_track(1, 48_000))
    poses = DrawnPoses(demo_motion(26, 25, 64, 64), 64, 64)
    picture = np.zeros((64, 64, 3), np.uint8)
    item = Prepared(picture, poses, None, 25, PipelineOptions(), sound=source)
    write_videos([item], [tmp_path / name], iter([ramp(25, 64, 64)[None] / 255]), OutputOptions())
    assert open_video(tmp_path / name).has_audio
