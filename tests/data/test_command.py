"""The command `mimicmotion prepare`: examples of its help, mistakes in one sentence, and a run of the script."""

import re
import shlex

import pytest
from counted import write_counted

from mimicmotion_jax.cli import prepare as command
from mimicmotion_jax.config import load_config
from mimicmotion_jax.runtime.errors import run_script


def test_the_examples_of_the_help_are_valid(capsys):
    with pytest.raises(SystemExit):
        command.parse_args(["--help"])
    text = capsys.readouterr().out.replace("\\\n", " ")
    examples = re.findall(r"^  mimicmotion prepare (.+)$", text, re.MULTILINE)
    assert len(examples) == 6
    for example in examples:
        args = command.parse_args(shlex.split(example))
        load_config(command.ScriptConfig, args.config, args.options)
        assert args.output.startswith(("data/", "gs://"))


def test_a_run(tmp_path, capsys):
    """With options of Beam, and a detector on pictures of nobody."""
    pytest.importorskip("mediapipe")  # there is no wheel for Python 3.13
    videos = tmp_path / "videos"
    write_counted(videos / "a.mp4", 5)
    write_counted(videos / "b.mp4", 5)
    (videos / "b.npz").unlink()
    line = ["--videos", videos, "--output", tmp_path / "out"]
    line += [
        "detector=mediapipe",
        "min_frames=5",
        "--beam-options",
        "direct_num_workers=2,direct_running_mode=multi_threading",
    ]
    assert not command.main([*map(str, line)])
    assert capsys.readouterr().out.startswith(
        "prepared 1 videos (5 frames, 0.0 minutes), 1 skipped:\n  b.mp4: nobody was found"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--synthetic", "0"], "a world of 0 scenes is empty"),
        (["--synthetic", "1", "world.width=97"], "world.width: input should be a multiple of 2"),
        (["--synthetic", "1", "world.height=32"], "world.height: input should be greater than or equal to 64"),
        (["--synthetic", "1", "world.fps=-1"], "world.fps"),
        (["--synthetic", "1", "world.frames=3"], "did you mean 'world.num_frames'?"),
        (["--synthetic", "1", "--keypoints", "poses"], "leave --keypoints out"),
        (["--synthetic", "1", "--test-set", "crf=3"], "takes no options but world.*"),
        (["--videos", "here", "world.seed=1"], "give --synthetic N"),
        (["--videos", "here", "--test-set"], "give --synthetic N"),
    ],
)
def test_bad_values_are_one_sentence(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(lambda: command.main(["--output", str(tmp_path / "out"), *arguments]))()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert not (tmp_path / "out").exists()
