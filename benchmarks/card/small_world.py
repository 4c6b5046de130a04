"""The synthetic world in memory: worker processes render scenes in the background, training reads them at random.

No video is written and nothing is decoded. The newest scenes are kept, so that a long training sees new people until it
ends.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from unittest import mock

import cv2
import numpy as np

from mimicmotion_jax.pose.hands import hand_mask
from mimicmotion_jax.pose.render import DrawStyle, draw_poses
from mimicmotion_jax.synthetic.config import Movement
from mimicmotion_jax.synthetic.detector import LIKE_DWPOSE, DetectorConfig, simulate_detection
from mimicmotion_jax.synthetic.world import make_scenes, render

_SLOTS = 2  # scenes that a worker has finished and that are not yet copied
_SCENES_OF_SEED = 10**6

SPARE = 2 * _SLOTS
"""Places per worker whose scenes count as lost, because new ones may be written there at any time."""


@dataclasses.dataclass(frozen=True)
class WorldPlan:
    """Description of the scenes.

    Attributes:
        width: pixels.
        height: pixels.
        num_frames: frames of a scene.
        fps: frames per second, those of scene n at n modulo their number.
        cells: height and width of latents.
        style: of drawn skeletons.
        seed: of people, motions and rooms, below 2^43.
        split: "train" or "test", which share nobody.
        detector: quality of the simulated detector.
        movement: "facing" for people who always face the viewer, "free" for people who also turn their backs.
    """

    width: int
    height: int
    num_frames: int
    fps: tuple[float, ...]
    cells: tuple[int, int]
    style: DrawStyle
    seed: int
    split: str = "train"
    detector: DetectorConfig = LIKE_DWPOSE
    movement: Movement = "facing"

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of the arrays of a scene that training needs."""
        picture = (self.num_frames, self.height, self.width, 3)
        mask = (self.num_frames, *self.cells)
        return {"frames": (picture, np.uint8), "poses": (picture, np.uint8), "hand_mask": (mask, np.bool_)}

    def make(self, number: int) -> dict[str, Any]:
        """Render scene `number` with the skeletons and hands that a detector would find.

        Returns:
            The `arrays`, `background` [height, width, 3], the detected `keypoints` and the `exact` ones.
        """
        seed, fps = self.seed * _SCENES_OF_SEED + number, self.fps[number % len(self.fps)]
        size = self.width, self.height, self.num_frames
        (scene,) = make_scenes(1, seed, self.split, *size, fps, self.movement)
        rendered = render(scene)
        detected = simulate_detection(rendered.keypoints, scene.character, self.detector)
        return {
            "frames": rendered.frames,
            "poses": draw_poses(detected, self.height, self.width, style=self.style),
            "hand_mask": hand_mask(detected, *self.cells),
            "background": rendered.background,
            "keypoints": detected,
            "exact": rendered.keypoints,
        }


class World:
    """Scenes of a plan, rendered by worker processes from the moment of the call on.

    Args:
        plan: of the scenes.
        capacity: number of scenes that are kept, the newest.
        workers: number of processes.
        limit: number of scenes that are rendered in all; None for as many as there is time for.

    Attributes:
        count: number of scenes rendered so far; the one that came n-th lies at n modulo `capacity` of the arrays.
        arrays: [capacity, frames of a scene, ...] by name.
        numbers: number of the scene at each place, which its content depends on; -1 where there is none yet.
    """

    def __init__(self, plan: WorldPlan, capacity: int, workers: int, limit: int | None = None):
        self.plan, self.capacity, self.count = plan, capacity, 0
        self.arrays = {name: np.empty((capacity, *shape), dtype) for name, (shape, dtype) in plan.arrays.items()}
        self.numbers = np.full(capacity, -1)
        self._folder = _shared_folder(plan, workers)
        self._slots = _open_slots(plan, self._folder, workers, "w+")
        self._tasks = [
            Task(_render, plan, self._folder, range(worker, limit or _SCENES_OF_SEED, workers), worker, workers)
            for worker in range(workers)
        ]
        self._collector = threading.Thread(target=self._collect, name="scenes", daemon=True)
        self._collector.start()

    def kept(self) -> tuple[int, int]:
        """Numbers of the first scene that stays for a while, and of the first that is not there yet."""
        return max(0, self.count + SPARE * len(self._tasks) - self.capacity), self.count

    def wait(self, count: int) -> None:
        """Wait until so many scenes are there.

        Raises:
            RuntimeError: all workers have ended.
        """
        while self.count < count:
            if not self._collector.is_alive() and self.count < count:
                raise RuntimeError(f"the processes that render the world have ended after {self.count} scenes")
            time.sleep(0.05)

    def close(self) -> None:
        """End the workers and remove their files."""
        for task in self._tasks:
            task.process.terminate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _collect(self) -> None:
        turns = dict.fromkeys(range(len(self._tasks)), 0)
        workers = {task.pipe: worker for worker, task in enumerate(self._tasks)}
        while workers:
            for pipe in multiprocessing.connection.wait(list(workers)):
                try:
                    pipe.recv()
                except (EOFError, OSError):  # it has ended
                    del workers[pipe]
                    continue
                worker = workers[pipe]
                slot = worker * _SLOTS + turns[worker] % _SLOTS
                for name, array in self.arrays.items():
                    array[self.count % self.capacity] = self._slots[name][slot]
                self.numbers[self.count % self.capacity] = worker + turns[worker] * len(self._tasks)
                turns[worker] += 1
                self.count += 1
                with contextlib.suppress(OSError):  # it has ended
                    pipe.send(None)


class Task:
    """Function that runs in a new process, with a pipe as its first argument.

    Queues and semaphores would need shared memory, which not every machine has.
    """

    def __init__(self, function: Callable[..., None], *args: Any):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=function, args=(theirs, *args), daemon=True)
        self.process.start()
        theirs.close()

    @classmethod
    def call(cls, function: Callable[..., Any], *args: Any) -> Self:
        """Start `function(*args)`, whose result `result` waits for."""
        return cls(_send_result, function, *args)

    def result(self) -> Any:
        """Wait for the result.

        Raises:
            EOFError: the process has ended without one.
        """
        found = self.pipe.recv()
        self.process.join()
        return found


def _send_result(pipe: Any, function: Callable[..., Any], *args: Any) -> None:
    pipe.send(function(*args))


def _render(pipe: Any, plan: WorldPlan, folder: Path, numbers: range, worker: int, workers: int) -> None:
    """Render scenes into this worker's slots; each is told, and its slot is free again when there is an answer."""
    os.nice(10)  # the process that feeds the card comes first
    cv2.setNumThreads(1)
    slots = _open_slots(plan, folder, workers, "r+")
    for turn, number in enumerate(numbers):
        made = plan.make(number)
        if turn >= _SLOTS:
            pipe.recv()
        for name, slot in slots.items():
            slot[worker * _SLOTS + turn % _SLOTS] = made[name]
        pipe.send(None)


def _open_slots(plan: WorldPlan, folder: Path, workers: int, mode: Any) -> dict[str, np.memmap]:
    shapes = plan.arrays.items()
    return {
        name: np.memmap(folder / name, dtype, mode, shape=(workers * _SLOTS, *shape)) for name, (shape, dtype) in shapes
    }


def _shared_folder(plan: WorldPlan, workers: int) -> Path:
    """Make a folder for the slots, in memory if there is room."""
    needed = workers * _SLOTS * sum(int(np.prod(shape)) for shape, _ in plan.arrays.values())
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError):
        if shutil.disk_usage(memory).free > 2 * needed:
            return Path(tempfile.mkdtemp(dir=memory))
    return Path(tempfile.mkdtemp())


def host_only() -> contextlib.AbstractContextManager[Any]:
    """Context in which processes are started that leave the card alone and compute on one core each."""
    return mock.patch.dict(os.environ, JAX_PLATFORMS="cpu", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
