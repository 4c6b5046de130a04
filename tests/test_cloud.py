"""Files for other machines: everything in docs/cloud.md, examples/cloud and the image that can be tried on this one."""

import importlib
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

from mimicmotion_jax.cli.main import COMMANDS
from mimicmotion_jax.config import load_config
from mimicmotion_jax.inference.options import load_options
from mimicmotion_jax.runtime.beam import choose_runner
from mimicmotion_jax.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
CLOUD = ROOT / "examples" / "cloud"
PAGE = (ROOT / "docs" / "cloud.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "docker" / "requirements.txt").read_text(), re.MULTILINE))


def check_command(command: str, arguments: list[str]) -> None:
    """Parse a subcommand's arguments and build its configuration, as the command does before it starts."""
    module = importlib.import_module(f"mimicmotion_jax.cli.{COMMANDS[command][0]}")
    args = module.parse_args(arguments)
    if command == "train":
        assert load_config(TrainConfig, args.config, args.options).batch_size
    elif command == "sample":
        assert load_options(None, args.config, args.options)


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_shell_of_the_page(block):
    """Its syntax, and every command of ours in it, also inside docker run and gcloud ssh."""
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    words = split(re.sub(r"(?<!/)train_paper\.yaml", "configs/train_paper.yaml", block))
    for word in [word for word in words if "mimicmotion train" in word]:  # a command for another machine
        words += split(word)
    for start, word in enumerate(words[:-1]):
        if word == "mimicmotion" and words[start + 1] in COMMANDS:
            rest = words[start + 2 :]
            check_command(words[start + 1], rest[: rest.index("\n")])


def split(text: str) -> list[str]:
    """Words of a script, and a line feed at the end of each command."""
    lexer = shlex.shlex(text.replace("\\\n", ""), posix=True, punctuation_chars="\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, "#"
    return [word if word.strip("\n") else "\n" for word in [*lexer, "\n"]]


def pods():
    for path in sorted(CLOUD.glob("*.yaml")):
        for content in yaml.safe_load_all(path.read_text()):
            yield pytest.param(content, id=f"{path.stem}-{content['kind']}")


@pytest.mark.parametrize("content", list(pods()))
def test_kubernetes_takes_the_files(content):
    kubernetes_validate.validate(content, "1.33", strict=True)
    if content["kind"] == "Job":
        spec = content["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        command, *arguments = [argument.replace("$(PROCESS_ID)", "1") for argument in container["args"]]
        check_command(command, arguments)
        assert f"--num-processes={content['spec']['completions']}" in arguments
        coordinator = [argument for argument in arguments if argument.startswith("--coordinator")]
        name = content["metadata"]["name"]
        assert coordinator in ([], [f"--coordinator={name}-0.{spec.get('subdomain')}:8476"])


@pytest.fixture
def cluster(tmp_path) -> dict[str, str]:
    """Environment in which srun and mimicmotion are stand-ins that print what they are given."""
    for name in ("srun", "mimicmotion"):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@"\n')
        program.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def run_script(name: str, environment: dict[str, str], *arguments: str) -> list[str]:
    command = ["bash", str(CLOUD / name), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()


def test_slurm_trains(cluster):
    launcher, option, program, command, *rest = run_script("slurm_train.sbatch", cluster, "data.dataset=a b", "seed=7")
    assert (launcher, option, program, command) == ("srun", "--kill-on-bad-exit=1", "mimicmotion", "train")
    check_command("train", rest)
    assert rest[-2:] == ["data.dataset=a b", "seed=7"]
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", (CLOUD / "slurm_train.sbatch").read_text(), re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"]  # jax takes the GPU of the task's local number


def test_slurm_shares_a_job_list(cluster):
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
    given = ("my jobs.jsonl", "videos", "--checkpoint", "weights", "seed=7")
    program, command, *rest = run_script("slurm_generate.sbatch", cluster | array, *given)
    assert (program, command) == ("mimicmotion", "sample")
    args = importlib.import_module("mimicmotion_jax.cli.sample").parse_args(rest)
    assert (args.jobs, args.output_dir) == (Path("my jobs.jsonl"), Path("videos"))
    assert (args.process_id, args.num_processes, args.options) == (3, 8, ["seed=7"])


def test_beam_knows_the_options():
    from apache_beam.options.pipeline_options import PipelineOptions

    texts = re.findall(r'--beam-options "?([^\s\\]+(?:\\\n[^\s\\]+)*)', PAGE) + re.findall(r"`(runner=Flink\S+)`", PAGE)
    options = [text.replace("\\\n", "").strip('"').split(",") for text in texts if "=" in text]
    assert [run[0] for run in options] == ["runner=DirectRunner", "runner=DataflowRunner", "runner=FlinkRunner"]
    known = PipelineOptions(flags=[]).get_all_options()
    for run in options:
        assert not {option.partition("=")[0] for option in run} - set(known)
        flags = choose_runner(["runner=DirectRunner", *run[1:]], "beam").flags
        given = PipelineOptions(flags=list(flags)).get_all_options(drop_default=True)
        assert len(given) == len(flags)


def test_pinned_requirements_satisfy_the_project():
    """Each dependency, and those of the extras that the image has, with a version inside its bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"--extra (\w+)", PAGE)
    assert {"cuda", "train"} <= set(extras)
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or Marker(str(requirement.marker)).evaluate({"python_version": "3.12"}):
            assert requirement.specifier.contains(PINNED[requirement.name.replace("_", "-").lower()]), requirement.name
    assert "jax-cuda13-plugin" in PINNED
    text = (ROOT / "docker" / "requirements.txt").read_text()
    assert "://" not in text
    assert text.count("\n    --hash=sha256:") >= len(PINNED)


def test_the_image_copies_what_the_context_has():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert f"apache/beam_python3.12_sdk:{PINNED['apache-beam']} " in DOCKERFILE
    assert DOCKERFILE.index("USER 1000") > DOCKERFILE.index("AS mimicmotion")
