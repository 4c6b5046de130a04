"""Job lists: bad lines are explained, and no job overwrites what another one reads or writes."""

import json
from pathlib import Path

import pytest
from etils import epath

from mimicmotion_jax import InputError
from mimicmotion_jax.inference.job_list import read_jobs
from mimicmotion_jax.inference.options import GenerateConfig, with_options


def row(**more) -> str:
    return json.dumps({"image": "a.png", "motion": "b.mp4"} | more)


def two_outputs(*names: str) -> str:
    return "\n".join(row(output=name) for name in names)


ROW = row()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no jobs"),
        ("{", "line 1 is not JSON"),
        ('[{"image": "a.png", "motion": "b.mp4"}]', "line 1 is not a JSON object; write one object per line"),
        ('[\n{"image": "a.png", "motion": "b.mp4"}\n]', "line 1 is not JSON .*; write one object per line"),
        ('{"image": ' + "9" * 5000 + "}", "line 1 is not JSON"),
        ("7", "line 1 is not a JSON object"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"image": 7, "motion": "b.mp4"}', "image: input should be a valid string"),
        ('{"image": "a.png", "motion": "\\ud800"}', "motion: .*surrogates"),
        ('{"image": "a.png", "motion": "b\\u0000.mp4"}', "motion: .*is not a path"),
        ('{"image": "a.png"}', "motion"),
        ('{"image": "a.png", "motion": "b.mp4", "sead": 1}', "'sead' .*seed.* known keys: image, motion, output"),
        (row(options={"stepz": 3}), "line 1 .*unknown key 'stepz'"),
        (row(options={"stride": 0}), "line 1 .*stride: .*greater than or equal to 1, not 0"),
        (row(options={"batch_size": 2}), "line 1: batch_size is an option of the whole list"),
        (row(image="s3://bucket/a.png"), "line 1 .*image: s3://bucket/a.png is a URL"),
        (row(image="gs://bucket/://a.png"), "line 1 .*image: bucket/://a.png is a URL"),
        (row(output="gs://bucket/a.mp4"), "line 1 .*output: gs://bucket/a.mp4 is a URL"),
        (f"{ROW}\n\n{ROW}", "line 3: the job of line 1 writes .*a_b.mp4"),
        (two_outputs("x", "x/%05d.png"), "line 2: the job of line 1 writes .*x too"),
        (two_outputs("x.mp4", "y/../x.mp4"), "line 2: the job of line 1 writes .*x.mp4 too"),
        (two_outputs("x.mp4", "x.avi"), "line 2: cannot write .*x.avi"),
        (two_outputs("b.mp4"), "line 1: this job would destroy .*b.mp4, which line 1 reads"),
        (two_outputs("x.mp4", "y/../b.mp4"), "line 2: this job would destroy .*b.mp4, which line 1 reads"),
        (
            row(image="p/0.png", output="q.mp4") + "\n" + row(output="p/%05d.png"),
            "line 2: this job would destroy .*0.png",
        ),
        (row(motion_size=[0, 5]), "motion_size"),
    ],
)
def test_a_bad_job_file_is_explained(text, message, tmp_path):
    (tmp_path / "jobs.jsonl").write_text(text)
    with pytest.raises(InputError, match=rf"jobs\.jsonl.*{message}") as caught:
        read_jobs(tmp_path / "jobs.jsonl", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_job_file(tmp_path):
    with pytest.raises(InputError, match=rf"the job file {tmp_path} cannot be read"):
        read_jobs(tmp_path, tmp_path / "videos")


@pytest.mark.parametrize(
    "output", ["../x.mp4", "../../../etc/x.mp4", "/etc/x.mp4", "out/x.mp4", "a/../..", ".", "%05d.png"]
)
@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("output_dir", ["videos", "gs://bucket/videos"])
def test_an_output_outside_the_folder_is_refused(output, output_dir, tmp_path):
    """Also by a link (out/x.mp4), and as the folder itself."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "out").symlink_to(tmp_path)
    (tmp_path / "jobs.jsonl").write_text(f"{row()}\n{row(output=output)}")
    remote = "://" in output_dir
    root = epath.Path(output_dir) if remote else tmp_path / output_dir
    if remote and output == "out/x.mp4":  # a bucket has no links
        assert len(read_jobs(tmp_path / "jobs.jsonl", root)) == 2
        return
    with pytest.raises(InputError, match=r"line 2: .*output.* inside .*videos") as caught:
        read_jobs(tmp_path / "jobs.jsonl", root)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("bucket")
def test_outputs_in_a_bucket_keep_their_url(tmp_path):
    (tmp_path / "jobs.jsonl").write_text("\n".join([row(), row(output="deep/x.gif"), row(output="y/../z.gif")]))
    jobs = read_jobs(tmp_path / "jobs.jsonl", epath.Path("gs://bucket/videos"))
    assert [str(job.output) for job in jobs][:2] == ["gs://bucket/videos/a_b.mp4", "gs://bucket/videos/deep/x.gif"]
    (tmp_path / "jobs.jsonl").write_text("\n".join([row(output="z.gif"), row(output="y/../z.gif")]))
    with pytest.raises(InputError, match="line 2: the job of line 1 writes"):
        read_jobs(tmp_path / "jobs.jsonl", epath.Path("gs://bucket/videos"))


OFFICIAL = """
# The layout of the official release's configs/test.yaml.
base_model_path: stabilityai/stable-video-diffusion-img2vid-xt-1-1
ckpt_path: models/MimicMotion_1-1.pth
test_case:
  - ref_video_path: assets/videos/pose1.mp4
    ref_image_path: assets/images/demo1.jpg
    num_frames: 72
    resolution: 576
    frames_overlap: 6
    num_inference_steps: 25
    noise_aug_strength: 0
    guidance_scale: 2.0
    sample_stride: 2
    fps: 15
    seed: 42
  - ref_video_path: beside.mp4
    ref_image_path: assets/images/demo1.jpg
  - ref_video_path: beside.mp4
    ref_image_path: assets/images/demo1.jpg
    seed: 7
"""


def test_the_official_yaml_is_a_job_list(tmp_path, monkeypatch):
    """Inputs are relative to the working directory, or else to the folder of the list."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "beside.mp4").write_bytes(b"")
    (lists / "test.yaml").write_text(OFFICIAL)
    monkeypatch.chdir(tmp_path)
    first, second, third = read_jobs(lists / "test.yaml", tmp_path / "videos")
    assert (first.image, first.motion) == (Path("assets/images/demo1.jpg"), Path("assets/videos/pose1.mp4"))
    assert first.output == tmp_path / "videos" / "demo1_pose1.mp4"
    assert first.options == {
        "window_size": 72,
        "window_overlap": 6,
        "stride": 2,
        "resolution": 576,
        "num_inference_steps": 25,
        "guidance_scale": 2.0,
        "noise_aug_strength": 0,
        "seed": 42,
    }
    config = with_options(GenerateConfig(stride=3, crf=30), first.options)
    assert (config.stride, config.window_size, config.seed, config.fps, config.crf) == (2, 72, 42, 7, 30)
    assert second.motion == third.motion == lists / "beside.mp4"
    assert (second.options, third.options) == ({}, {"seed": 7})
    assert [job.output.name for job in (second, third)] == ["demo1_beside.mp4", "demo1_beside_2.mp4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: 42", "sead: 42"), "test_case 1 .*'sead' .*known keys: .*ref_image_path"),
        (("ckpt_path:", "ckpt:"), "unknown key 'ckpt' .*known keys: test_case, base_model_path, ckpt_path"),
        (("num_frames: 72", "num_frames: 1"), "test_case 1 .*window_size: .*not 1"),
        (("ref_image_path: assets/images/demo1.jpg\n    num", "num"), "test_case 1 .*ref_image_path: .*required"),
        (("assets/videos/pose1.mp4", "s3://b/pose1.mp4"), "test_case 1 .*s3://b/pose1.mp4 is a URL"),
        (("test_case:", "test_case: ["), "not valid YAML"),
        (("test_case:", "test_case: []\nx:"), "unknown key 'x'"),
        ((OFFICIAL, "test_case: []"), "no jobs"),
        ((OFFICIAL, "test_case: 3"), "test_case: .*list"),
    ],
)
def test_a_bad_official_yaml_is_explained(tmp_path, change, message):
    assert change[0] in OFFICIAL
    (tmp_path / "test.yaml").write_text(OFFICIAL.replace(*change))
    with pytest.raises(InputError, match=rf"test\.yaml.*{message}") as caught:
        read_jobs(tmp_path / "test.yaml", tmp_path)
    assert "\n" not in str(caught.value)


def test_options_of_a_line_are_checked_with_those_of_the_list(tmp_path):
    (tmp_path / "jobs.jsonl").write_text(row(seed=3, options={"decode_overlap": 9, "align": "limb"}))
    with pytest.raises(InputError, match=r"line 1 .*decode_overlap .9. must be smaller than decode_chunk_size"):
        read_jobs(tmp_path / "jobs.jsonl", tmp_path)
    (job,) = read_jobs(tmp_path / "jobs.jsonl", tmp_path, GenerateConfig(decode_chunk_size=16))
    assert (job.seed, job.options) == (3, {"decode_overlap": 9, "align": "limb"})


def test_poses_count_as_outputs_where_they_are_written(tmp_path):
    """Two videos would share one skeleton; a motion would be replaced by itself, moved."""
    (tmp_path / "twice.jsonl").write_text(two_outputs("x.mp4", "x.gif"))
    (tmp_path / "motion.jsonl").write_text(row(motion="k_pose.npz", output="k.mp4"))
    (tmp_path / "one.jsonl").write_text(row(motion="k_pose.npz", output="k.mp4", options={"save_pose": True}))
    with pytest.raises(InputError, match=r"destroy .*k_pose\.npz"):
        read_jobs(tmp_path / "one.jsonl", tmp_path)
    for name, message in (("twice", "line 1 writes .*x_pose.npz too"), ("motion", "destroy .*k_pose.npz")):
        file = tmp_path / f"{name}.jsonl"
        read_jobs(file, tmp_path)
        with pytest.raises(InputError, match=message):
            read_jobs(file, tmp_path, GenerateConfig(save_pose=True))


def test_links_are_followed(tmp_path):
    (tmp_path / "b.mp4").write_bytes(b"a video")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "jobs.jsonl").write_text(row(output="link/b.mp4"))
    with pytest.raises(InputError, match="this job would destroy"):
        read_jobs(tmp_path / "jobs.jsonl", tmp_path)
