"""`mimicmotion sample` without inputs: the demonstration on the small model."""

import numpy as np
import pytest

from mimicmotion_jax import InputError, MimicMotionPipeline
from mimicmotion_jax.cli import sample
from mimicmotion_jax.video.decode import open_video


def run(*arguments) -> int:
    return sample.main(list(map(str, arguments)))


@pytest.mark.slow  # the README's first command makes it too; panels are compared in `test_sample`
def test_the_demonstration_is_a_video_of_three_panels(tmp_path):
    assert run("--output", tmp_path / "demo.mp4", "num_frames=5", "num_inference_steps=1") == 0
    video = open_video(tmp_path / "demo.mp4")
    assert video.num_frames == 5
    reference, skeleton, result = np.array_split(next(iter(video.frames())), 3, axis=1)
    assert skeleton.mean() < 60 < min(reference.mean(), result.mean())  # skeletons are drawn on black


def test_the_demonstration_takes_size_type_and_devices(tmp_path, monkeypatch):
    """Options of a file override the demonstration's own and the student's. (What comes out, other tests say.)"""
    (tmp_path / "mine.yaml").write_text("num_frames: 2\nnum_inference_steps: 1\nside_by_side: false\n")

    class Asked(Exception):
        pass

    def stream(pipeline, image, motion, **options):
        raise Asked(pipeline, image, motion, options)

    monkeypatch.setattr(MimicMotionPipeline, "stream", stream)
    switches = ["--config", tmp_path / "mine.yaml", "--dtype", "bfloat16", "--devices", "2"]
    with pytest.raises(Asked) as asked:
        run(
            "--checkpoint", "small-student", "--output", tmp_path / "a.gif", *switches, "resolution=64", "aspect=square"
        )
    pipeline, image, motion, options = asked.value.args
    assert image.shape == (64, 64, 3)
    assert (motion.num_frames, options["num_inference_steps"], options["sampler"]) == (2, 1, "consistency")
    assert pipeline.mesh.size == 2
    assert pipeline.unet.conv_in.kernel.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("stride=2", "stride has no effect on the demonstration"),
        ("person=1", "person has no effect on the demonstration"),
        ("resolution=100", "resolution 100 is not a multiple of"),
        # `resolution` is refused in the same place.
        pytest.param("width=97", "both sides must be multiples of", marks=pytest.mark.slow),
    ],
)
def test_what_the_demonstration_cannot_do_is_refused(tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        run("--output", tmp_path / "demo.mp4", option)
    assert not list(tmp_path.iterdir())
