"""However a batch is spread over devices, and into however many parts it is split, the same losses come out."""

import jax
import numpy as np
import pytest

from mimicmotion_jax.training.state import init_state
from mimicmotion_jax.training.tasks.diffusion import Diffusion


def losses(config, num_devices: int) -> np.ndarray:
    task = Diffusion(config, progress=False, devices=jax.devices()[:num_devices])
    state = init_state(task.load(), config.optimizer, config.steps, task.mesh)
    values = []
    for _ in range(4):
        state, metrics = task.step(state, task.next_batch())
        values.append([metrics["loss"], metrics["loss_hands"], metrics["loss_elsewhere"], metrics["grad_norm"]])
    task.loader.close()
    return np.array(values)


@pytest.fixture(scope="module")
def on_one(make_config, tmp_path_factory):
    return losses(make_config(tmp_path_factory.mktemp("one")), 1)


@pytest.mark.parametrize(
    ("num_devices", "options"),
    [
        pytest.param(2, ["mesh.data=2", "mesh.fsdp=1", "accumulation=2"], id="data-parallel, accumulation"),
        pytest.param(8, ["mesh.data=2", "mesh.fsdp=2", "mesh.frames=2", "remat=true"], id="data x fsdp x frames"),
        pytest.param(4, ["mesh.data=4", "mesh.fsdp=1"], id="data-parallel", marks=pytest.mark.slow),
        pytest.param(1, ["accumulation=4"], id="accumulation", marks=pytest.mark.slow),
        pytest.param(4, ["accumulation=2", "mesh.fsdp=2", "mesh.frames=2"], id="all together", marks=pytest.mark.slow),
    ],
)
def test_same_losses(on_one, make_config, tmp_path, num_devices, options):
    found = losses(make_config(tmp_path, *options), num_devices)
    assert on_one[:, 0].std() > 0.01  # different losses
    np.testing.assert_allclose(found, on_one, rtol=1e-5)
