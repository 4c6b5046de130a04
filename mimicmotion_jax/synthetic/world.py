"""Videos of drawn people who move in drawn rooms, with exact keypoints, for training and tests."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, UInt8

from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.appearance import Character, make_character
from mimicmotion_jax.synthetic.background import make_background
from mimicmotion_jax.synthetic.cast import CARTOONS
from mimicmotion_jax.synthetic.config import Cast, Movement
from mimicmotion_jax.synthetic.drawing import Layer, Painter, orders
from mimicmotion_jax.synthetic.figure import (
    FACE,
    HANDS,
    figure_layers,
    figure_points,
    folded_away,
    owning_parts,
    turned_to_us,
)
from mimicmotion_jax.synthetic.head import face_points
from mimicmotion_jax.synthetic.motion import make_tracks
from mimicmotion_jax.synthetic.parts import Part, View
from mimicmotion_jax.synthetic.skeleton import pose
from mimicmotion_jax.synthetic.sway import make_sway

SMALLEST_SIDE = 32
_TAG = 0x7363
_NUMBERS = 2**40
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Scene:
    """Description of one video, which these values determine.

    `character`, `motion` and `background` are numbers from 0; each appearance, motion and room is a function of its
    number alone. `full` shows the whole body, `half` the body above the thighs, with hands twice as large. `facing` is
    the movement of people who always face the viewer; `free` has more kinds of motion, in which they turn their backs,
    and hair and skirts that swing. `cartoons` takes `character` modulo eight from `cast.CARTOONS`.

    Raises:
        InputError: another framing, movement or cast, a cartoon that shall turn, a negative number, a side below 32
            pixels, less than one frame, or a frame rate not above 0.
    """

    character: int
    motion: int
    background: int
    framing: Literal["full", "half"]
    width: int
    height: int
    num_frames: int
    fps: float
    movement: Movement = "facing"
    cast: Cast = "people"

    def __post_init__(self) -> None:
        if min(self.character, self.motion, self.background) < 0:
            raise InputError(
                "a scene's character, motion and background are numbers from 0; choose one that is not negative."
            )
        if self.framing not in ("full", "half"):
            raise InputError(f"a scene's framing is 'full' or 'half', not '{self.framing}'.")
        if self.movement not in ("facing", "free"):
            raise InputError(f"a scene's movement is 'facing' or 'free', not '{self.movement}'.")
        if self.cast not in ("people", "cartoons"):
            raise InputError(f"a scene's cast is 'people' or 'cartoons', not '{self.cast}'.")
        if self.cast == "cartoons" and self.movement != "facing":
            raise InputError("cartoons have no backs; take movement 'facing' with them.")
        _check_size(self.width, self.height, self.num_frames, self.fps)


@dataclass(frozen=True, eq=False)
class Rendered:
    """Frames of a scene with exact masks and keypoints.

    Keypoints have score 1 if they are visible, and 0 if another part of the body hides them or they are outside the
    picture. Hair and hats hide nothing; fingers do not hide each other, but a palm hides those folded behind it.
    """

    frames: UInt8[np.ndarray, "frames height width 3"]  # RGB
    foreground: Bool[np.ndarray, "frames height width"]  # the figure covers more than half of the pixel
    background: UInt8[np.ndarray, "height width 3"]
    keypoints: Keypoints


@beartype
def make_scenes(
    count: int,
    seed: int,
    split: Literal["train", "test"],
    width: int,
    height: int,
    num_frames: int,
    fps: float | int = 15.0,
    movement: Movement = "facing",
    cast: Cast = "people",
) -> list[Scene]:
    """Draw scenes; "test" has odd numbers of characters, motions and backgrounds, and "train" even ones.

    None therefore occurs in both, whatever the seeds.

    Raises:
        InputError: a negative count or seed, a side below 32 pixels, less than one frame, a frame rate not above 0;
            cartoons to train on, or who shall turn.
    """
    if cast == "cartoons" and split == "train":
        raise InputError("cartoons are for test sets only; ask for world.split=test or a test set.")
    if count < 0 or seed < 0:
        raise InputError(f"scenes need a count and a seed of at least 0, not {count} and {seed}.")
    _check_size(width, height, num_frames, fps)
    style = width, height, num_frames, float(fps), movement, cast
    return [_draw(number, seed, split, *style) for number in range(count)]


def _draw(
    number: int,
    seed: int,
    split: str,
    width: int,
    height: int,
    num_frames: int,
    fps: float,
    movement: Movement,
    cast: Cast,
) -> Scene:
    """Draw scene `number` of a seed; it does not depend on the count."""
    parity = _SPLITS.index(split)
    random = np.random.default_rng([_TAG, seed, parity, number])
    character, motion, background = (2 * int(random.integers(_NUMBERS)) + parity for _ in range(3))
    framing = "full" if random.random() < 0.5 else "half"
    return Scene(character, motion, background, framing, width, height, num_frames, fps, movement, cast)


@beartype
def render(scene: Scene) -> Rendered:
    """Render a scene; equal values give equal pictures."""
    cartoon = scene.cast == "cartoons"
    character = CARTOONS[scene.character % len(CARTOONS)] if cartoon else make_character(scene.character)
    tracks = make_tracks(scene.motion, scene.num_frames, scene.fps, scene.movement)
    supersampling = 2 if max(scene.width, scene.height) > 400 else 4 if max(scene.width, scene.height) < 220 else 3
    scale, middle, floor = _framing(scene, character)
    joints = pose(character.body, tracks, window=(0.5 * scene.width / scale - 0.06, floor / scale - 0.06))
    free = scene.movement == "free"
    if free:
        seconds = np.arange(scene.num_frames) / scene.fps
        joints = dataclasses.replace(joints, sway=make_sway(character.body, scene.motion, seconds))
    view = View(scale * supersampling, middle * supersampling, floor * supersampling)
    face = face_points(tracks.mouth, tracks.blink, character.smile)
    layers = figure_layers(view, character, joints, face)
    background = make_background(scene.background, scene.width, scene.height, floor - 0.1 * scale, scale)

    pixels, owners = view.project(figure_points(character, joints, face)), owning_parts(free)
    visible, folded = turned_to_us(joints, face), folded_away(character, joints)
    painter = Painter(scene.width, scene.height, supersampling)
    frames = np.empty((scene.num_frames, scene.height, scene.width, 3), np.uint8)
    foreground = np.empty(frames.shape[:3], bool)
    for frame in range(scene.num_frames):
        frames[frame], foreground[frame] = _paint(painter, layers, frame, background)
        visible[frame] &= _on_top(painter.parts(), pixels[frame], owners, folded[frame])
    size = np.array([scene.width, scene.height]) * supersampling
    return Rendered(frames, foreground, background, _keypoints(scene, pixels / size, visible))


def _paint(
    painter: Painter, layers: Sequence[Layer], frame: int, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame and its foreground; the painter's parts are those of the order with the largest share."""
    mixed, cover = np.zeros(background.shape), np.zeros(background.shape[:2], bool)
    found = sorted(orders(layers, frame), key=lambda order: order[0])
    for share, order in found:
        painter.paint(order, frame)
        picture, cover = painter.over(background)
        if len(found) == 1:
            return picture, cover
        mixed += share * picture
    return np.rint(mixed).astype(np.uint8), cover


def _check_size(width: int, height: int, num_frames: int, fps: float) -> None:
    if min(width, height) < SMALLEST_SIDE:
        raise InputError(f"a scene needs sides of at least {SMALLEST_SIDE} pixels, not {width} x {height}.")
    if num_frames < 1 or not 0 < fps < float("inf"):
        raise InputError(f"a scene needs at least 1 frame and a frame rate above 0, not {num_frames} at {fps}.")


def _framing(scene: Scene, character: Character) -> tuple[float, float, float]:
    """Return pixels per height of the person, and column and row of the floor below the person."""
    random = np.random.default_rng([_TAG, scene.character, scene.motion, scene.background])
    tall = character.body.pelvis_height + character.body.spine + 0.055 + 0.16 * character.body.head
    middle = scene.width * random.uniform(0.47, 0.53)
    if scene.framing == "full":
        shown = min(random.uniform(0.7, 0.8) * scene.height, 1.12 * scene.width)
        scale = shown / tall
        return scale, middle, scene.height * random.uniform(0.935, 0.955) - 0.02 * scale
    scale = max(min(scene.height / random.uniform(0.7, 0.76), scene.width / 0.52), scene.height / 0.86)
    return scale, middle, random.uniform(0.09, 0.12) * scene.height + tall * scale


def _on_top(parts: np.ndarray, pixels: np.ndarray, owners: np.ndarray, folded: np.ndarray) -> Bool[np.ndarray, " 128"]:
    """Return True for points in the picture with one of their own parts on top."""
    x, y = np.floor(pixels).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < parts.shape[1]) & (y < parts.shape[0])
    top = parts[np.where(inside, y, 0), np.where(inside, x, 0)]
    return inside & owners[np.arange(len(owners)), top] & ~(folded & np.isin(top, (Part.PALM, Part.PALM + 1)))


def _keypoints(scene: Scene, points: Float[np.ndarray, "frames 128 2"], visible: np.ndarray) -> Keypoints:
    def person(array: np.ndarray) -> list[np.ndarray]:
        body, hands, face = np.split(array[:, None], (HANDS, FACE), axis=2)
        return [body, hands.reshape(len(array), 1, 2, 21, *array.shape[2:]), face]

    (body, hands, faces), (body_score, hands_score, faces_score) = person(points), person(visible.astype(np.float32))
    return Keypoints(body, body_score, hands, hands_score, faces, faces_score, scene.width, scene.height, scene.fps)
