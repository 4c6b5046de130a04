"""Checksums of training states: damage is found before it is used, and the checkpoint before it is taken."""

import json
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from toy import Toy, make_config

from mimicmotion_jax import sharding
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.state import abstract_state
from mimicmotion_jax.training.trainer import train


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def arrays_and_json(checkpoint: Path) -> set[str]:
    """Names of the files that hold something; orbax writes the time of the last commit beside them."""
    return {name for name in files_below(checkpoint) if "/" in name}


def flip(path: Path) -> None:
    """Turn over one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def flip_largest(folder: Path) -> None:
    flip(max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))


def final_params(folder: Path) -> np.ndarray:
    toy = Toy(make_config(folder))
    with RunCheckpoints(folder / "checkpoints", 9) as checkpoints:
        state, _ = checkpoints.restore(abstract_state(toy.shapes, toy.config.optimizer, toy.config.steps, toy.mesh))
    return np.asarray(state.params["toy.kernel"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of eight steps, saved at 4 and 8."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(Toy(make_config(folder))) is None
    return folder


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def test_every_file_of_a_checkpoint_has_a_checksum(whole):
    for step in ("4", "8"):
        folder = whole / "checkpoints" / step
        sums = json.loads((folder / "checksums.json").read_text())
        assert sums.keys() == arrays_and_json(folder)


def test_one_flipped_byte_makes_a_run_go_on_from_the_checkpoint_before(whole, copied, caplog):
    flip_largest(copied / "checkpoints" / "8")
    assert train(Toy(make_config(copied))) is None
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "the checkpoint of step 8 is damaged" in warning
    assert "another checksum" in warning
    assert "going on from step 4" in warning
    assert files_below(copied / "checkpoints" / "8.damaged") == files_below(whole / "checkpoints" / "8")
    np.testing.assert_array_equal(final_params(copied), final_params(whole))


@pytest.mark.parametrize("damage", ["missing", "checksums"])
def test_other_damage_is_found_likewise(copied, damage):
    folder = copied / "checkpoints" / "8"
    if damage == "missing":
        next((folder / "state").rglob("manifest.ocdbt")).unlink()
    else:
        (folder / "checksums.json").write_text("{")
    with RunCheckpoints(copied / "checkpoints", 9) as checkpoints:
        assert checkpoints.choose() == checkpoints.latest() == 4


def test_a_run_whose_checkpoints_are_all_damaged_is_left_alone(copied):
    for step in ("4", "8"):
        flip_largest(copied / "checkpoints" / step)
    before = files_below(copied)
    with pytest.raises(InputError, match=r"8 cannot be restored \(.*another checksum.*is undamaged; remove"):
        train(Toy(make_config(copied)))
    assert files_below(copied) == before


def test_checkpoints_of_before_the_checksums_are_taken(copied):
    for step in ("4", "8"):
        (copied / "checkpoints" / step / "checksums.json").unlink()
    with RunCheckpoints(copied / "checkpoints", 9) as checkpoints:
        assert checkpoints.choose() == 8


def test_a_damaged_checkpoint_is_not_called_good(tmp_path):
    """Damaged while the run goes on, which then meets a batch that is not finite."""
    toy = Toy(make_config(tmp_path, "save_every=2"), bad=6)
    step = toy.step

    def damaging(*args):
        if toy.loader.batches == 6:
            while not (tmp_path / "checkpoints" / "4").exists():
                time.sleep(0.02)
            flip_largest(tmp_path / "checkpoints" / "4")
        return step(*args)

    toy.step = damaging
    with pytest.raises(InputError, match="the checkpoint of step 2 is good"):
        train(toy)


def test_two_devices_train_as_one(tmp_path):
    """Plain data parallelism in one process: each device has half of a batch."""
    losses = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        toy = Toy(make_config(folder, "log_every=1"))
        toy.mesh = sharding.training_mesh(data=count, fsdp=1, devices=jax.devices()[:count])
        toy.loader.mesh = toy.mesh
        assert toy.mesh.shape["data"] == count
        assert train(toy) is None
        losses.append([json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()])
    np.testing.assert_allclose(*losses, rtol=1e-5)
