"""The synthetic world as a source of training videos, and as a folder of test sequences."""

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mimicmotion_jax.data.sources import Item, OpenedVideo
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.config import Split, WorldConfig
from mimicmotion_jax.synthetic.detector import simulate_detection
from mimicmotion_jax.synthetic.world import Scene, make_scenes, render
from mimicmotion_jax.video.encode import check_writable, open_writer

VERSION = 2
"""Version of `world` and `detector`; raise it when the same scene comes out different, so that it is prepared again."""


class SyntheticWorld:
    """Source (see `data.sources`) of `count` rendered scenes with simulated detections.

    Raises:
        InputError: a count below 1.
    """

    def __init__(self, count: int, config: WorldConfig):
        self._scenes = named(draw_scenes(config, count))

    def items(self, progress: bool = True) -> list[Item]:
        """List the scenes; nothing is rendered, so there is no progress to show."""
        del progress
        found = ((name, scene_digest(scene)) for name, scene in self._scenes.items())
        return [Item(name, digest, digest, has_keypoints=True) for name, digest in found]

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[OpenedVideo]:
        """Render the whole scene."""
        scene = self._scenes[item.name]
        rendered = render(scene)
        detected = detect(scene, rendered.keypoints)
        yield OpenedVideo(scene.fps, scene.num_frames, lambda: iter(rendered.frames), detected)


def write_test_set(scenes: Sequence[Scene], directory: str | Path, progress: bool = True) -> list[str]:
    """Write scenes as test sequences: NAME/00000.png …, NAME.npz (detected poses), NAME.foreground.npz.

    The last holds `foreground` Bool[F, H, W] and `background` UInt8[H, W, 3]. The folder NAME appears last, when it is
    complete; a sequence that has one is not rendered again.

    Args:
        scenes: all scenes of the test set.
        directory: local folder, new or with some of these sequences in it.
        progress: show a progress bar.

    Returns:
        Names of the sequences, see `named`.

    Raises:
        InputError: the folder holds other files or cannot be written.
    """
    if "://" in str(directory):
        raise InputError(f"test sequences are written to a local folder, not to {directory}; copy them afterwards.")
    directory, wanted = Path(directory), named(scenes)
    if directory.is_dir():
        others = (path.name for path in sorted(directory.iterdir()) if path.name[:1] != ".")
        if other := next((name for name in others if name.partition(".")[0] not in wanted), None):
            raise InputError(f"{directory} holds something else ({other}); choose a new or empty folder.")
    for name, scene in tqdm(wanted.items(), "rendering", unit="scene", disable=not progress):
        if (directory / name).is_dir():
            continue
        check_writable(directory / name)
        directory.mkdir(parents=True, exist_ok=True)
        rendered = render(scene)
        save_keypoints(detect(scene, rendered.keypoints), directory / f"{name}.npz")
        masks = io.BytesIO()
        np.savez_compressed(masks, foreground=rendered.foreground, background=rendered.background)
        write_file(directory / f"{name}.foreground.npz", masks.getvalue())
        with open_writer(directory / name, scene.fps, scene.width, scene.height, progress=False) as writer:
            writer.write(rendered.frames)
    return list(wanted)


def draw_scenes(config: WorldConfig, count: int, split: Split = "train") -> list[Scene]:
    """Draw the first `count` scenes of a world, from `split` if the configuration names none.

    Raises:
        InputError: a count below 1.
    """
    if count < 1:
        raise InputError(f"a world of {count} scenes is empty; ask for 1 or more.")
    split, size = config.split or split, (config.width, config.height, config.num_frames)
    return make_scenes(count, config.seed, split, *size, config.fps, config.movement, config.cast)


def named(scenes: Sequence[Scene]) -> dict[str, Scene]:
    """Name scenes by their number and the beginning of `scene_digest`."""
    return {f"{number:05d}-{scene_digest(scene)[:8]}": scene for number, scene in enumerate(scenes)}


def scene_digest(scene: Scene) -> str:
    """Hash all that determines a scene's video and poses, as a hex string."""
    values = dataclasses.asdict(scene)
    # Scenes of before these options keep their names and their detector's errors.
    for name, default in (("movement", "facing"), ("cast", "people")):
        if values[name] == default:
            del values[name]
    return hashlib.sha256(json.dumps([VERSION, values], sort_keys=True).encode()).hexdigest()


def detect(scene: Scene, exact: Keypoints) -> Keypoints:
    """Simulate the detection that is stored with a scene; the scene determines its errors."""
    return simulate_detection(exact, int(scene_digest(scene)[:16], 16))
