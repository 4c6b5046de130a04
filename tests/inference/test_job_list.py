"""Job lists: bad lines are explained, and no job overwrites what another one reads or writes."""

import json

import pytest

from mimicmotion_jax import InputError
from mimicmotion_jax.inference.job_list import read_jobs


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
        ("[" * 100_000, "line 1 is nested too deeply"),
        ('{"image": 7, "motion": "b.mp4"}', "image: input should be a valid string"),
        ('{"image": "a.png", "motion": "\\ud800"}', "motion: no file can be called"),
        ('{"image": "a.png", "motion": "b\\u0000.mp4"}', "motion: no file can be called"),
        ('{"image": "a.png"}', "motion"),
        ('{"image": "a.png", "motion": "b.mp4", "sead": 1}', "sead"),
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
    with pytest.raises(InputError, match=rf"the job file {tmp_path} is a folder; give a file"):
        read_jobs(tmp_path, tmp_path / "videos")


def test_poses_count_as_outputs_where_they_are_written(tmp_path):
    """Two videos would share one skeleton; a motion would be replaced by itself, moved."""
    (tmp_path / "twice.jsonl").write_text(two_outputs("x.mp4", "x.gif"))
    (tmp_path / "motion.jsonl").write_text(row(motion="k_pose.npz", output="k.mp4"))
    for name, message in (("twice", "line 1 writes .*x_pose.npz too"), ("motion", "destroy .*k_pose.npz")):
        file = tmp_path / f"{name}.jsonl"
        read_jobs(file, tmp_path)
        with pytest.raises(InputError, match=message):
            read_jobs(file, tmp_path, save_pose=True)


def test_links_are_followed(tmp_path):
    (tmp_path / "b.mp4").write_bytes(b"a video")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "jobs.jsonl").write_text(row(output="link/b.mp4"))
    with pytest.raises(InputError, match="this job would destroy"):
        read_jobs(tmp_path / "jobs.jsonl", tmp_path)
