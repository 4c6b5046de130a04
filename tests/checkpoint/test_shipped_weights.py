"""The models in the package carry checksums of all their numbers."""

import json
import shutil
from pathlib import Path

import pytest
from etils import epath

from mimicmotion_jax.checkpoint import PACKAGED, load_network, read_config
from mimicmotion_jax.checkpoint.checksums import find_damage
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.runtime.errors import InputError


@pytest.mark.parametrize("name", ["small", "small-student"])
def test_one_flipped_byte_is_found_before_it_is_used(tmp_path, name):
    shutil.copytree(PACKAGED / name / "params", tmp_path / "params")
    params = epath.Path(tmp_path / "params")
    files = [path for path in Path(params).glob("*/**/*") if path.is_file()]
    sums = json.loads((params / "checksums.json").read_text())
    assert sums.keys() == {path.relative_to(params).as_posix() for path in files}
    for file in files:
        content = file.read_bytes()
        group = file.relative_to(params).parts[0]
        assert find_damage(params, group) is None
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        name = "/".join(file.relative_to(params).parts)
        assert find_damage(params, group) == f"{name} has another checksum than when it was written"
        file.write_bytes(content)


def test_the_refusal_names_the_file(tmp_path):
    shutil.copytree(WEIGHTS, tmp_path / "small")
    largest = max((tmp_path / "small/params/pose_net-00000").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(bytes(8) + largest.read_bytes()[8:])
    with pytest.raises(InputError, match=rf"pose_net-00000 is damaged .*{largest.name} has another checksum"):
        load_network(tmp_path / "small", "pose_net", read_config(tmp_path / "small"))
