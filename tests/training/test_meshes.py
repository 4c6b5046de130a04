"""Meshes of TPU slices that are not present, and the rows of a batch that each process reads for them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.xla_report import topology_devices

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("slice_", "sizes"),
    [
        ("v5p:2x2x2", (1, 8, 1)),
        ("v5p:2x2x2", (2, 2, 2)),
        ("v5e:4x4", (1, 16, 1)),
        ("v6e:4x4", (1, 2, 8)),  # an axis of the mesh takes sides of the slice in part
        ("v6e:8x8", (1, 32, 2)),
        ("v5p:4x4x4", (1, 64, 1)),
        ("v5p:4x4x4", (1, 8, 8)),
    ],
)
def test_every_process_has_the_rows_of_its_chips(slice_, sizes):
    """A row of the mesh's first two axes holds two samples; the mesh follows the slice's wires, not the processes."""
    mesh = sharding.training_mesh(*sizes, devices=topology_devices(slice_))
    chips = mesh.devices.reshape(-1, sizes[2])
    processes = {chip.process_index for chip in mesh.devices.flat}
    read = {}
    for process in processes:
        rows, share, num_shares = sharding.local_rows(mesh, 2 * len(chips), process)
        mine = [i for i, row in enumerate(chips) if process in {chip.process_index for chip in row}]
        assert rows == tuple(row for i in mine for row in (2 * i, 2 * i + 1))
        assert read.setdefault(share, rows) == rows
        assert num_shares * len(rows) == 2 * len(chips)
    assert sorted(row for rows in read.values() for row in rows) == list(range(2 * len(chips)))


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("slice_", ["v5e:2x4", "v5p:2x2x2"])
def test_any_number_of_a_slices_chips_samples(slice_, count):
    assert sharding.sampling_mesh(count, topology_devices(slice_)).size == count


def test_devices_and_axes_are_named():
    assert sharding.describe_mesh(sharding.training_mesh(data=2, frames=2)) == "8 x cpu (mesh data=2 fsdp=2 frames=2)"
    assert sharding.describe_mesh(sharding.sampling_mesh(1)) == "1 x cpu (mesh windows=1)"


def test_shares_that_overlap_in_part_are_refused():
    """Four chips to a host, three to a sample."""
    chips = sorted(topology_devices("v5e:4x4"), key=lambda chip: chip.process_index)[:12]
    mesh = Mesh(np.array(chips).reshape(1, 4, 3), (sharding.DATA, sharding.FSDP, sharding.FRAMES))
    with pytest.raises(InputError, match=r"change mesh\.data or fsdp"):
        sharding.local_rows(mesh, 4, 0)


_PROCESS = """
import sys
import jax
import numpy as np
from mimicmotion_jax import sharding

jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
mesh = sharding.training_mesh(1, 8, 1, devices=[jax.devices()[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)])
rows, share, num_shares = sharding.local_rows(mesh, 16)
whole = np.arange(16 * 3).reshape(16, 3)
batch = sharding.global_batch(mesh, 16, {"x": whole[list(rows)]}, by_frame=())
for shard in batch["x"].addressable_shards:
    np.testing.assert_array_equal(shard.data, whole[shard.index])
print(share, num_shares, *rows)
"""


def test_two_processes_read_rows_that_alternate(free_port):
    """Their devices alternate in the mesh, two samples on each."""
    port = free_port()
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(port), str(i)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    found = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [errors for _, errors in found]
    expected = [[i, 2, *(4 * n + 2 * i + k for n in range(4) for k in range(2))] for i in range(2)]
    assert [[int(word) for word in text.split()] for text, _ in found] == expected
