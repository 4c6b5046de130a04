"""Whole turns of a person who moves freely: the way the body faces, and its path, over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.kinematics import smooth_step

# Kinds of motion in which a person turns their back: poses of the arms, and whether both do the same (see `KINDS`).
TURNING_KINDS: dict[str, tuple[Sequence[str], bool]] = {
    "turn around": (("hang", "hip", "low", "show", "side", "swing ahead"), False),
    "spin": (("side", "low", "diagonal", "hip", "up", "chest"), True),
    "walk away": (("swing ahead", "swing back"), False),
    "pace": (("swing ahead", "swing back"), False),
    "look back": (("hang", "hip", "swing back", "low", "behind"), False),
}


@dataclass(frozen=True)
class Turning:
    """Yaw in radians to the person's right: of the body, and in addition of the chest and of the head."""

    heading: Float[np.ndarray, " frames"]
    path: Float[np.ndarray, "frames 3"]
    chest: Float[np.ndarray, " frames"]
    head: Float[np.ndarray, " frames"]


def make_heading(random: np.random.Generator, kind: str, beats: Float[np.ndarray, " frames"]) -> Turning:
    """Draw the turns of a kind of motion; only those of `TURNING_KINDS` turn at all.

    In a turn the chest comes a little after the pelvis, and the head before both.
    """
    side, start, size, alternating = (
        random.choice([-1, 1]),
        random.uniform(0, 20),
        random.random(),
        random.random() < 0.5,
    )
    path, glance = np.zeros((len(beats), 3)), np.zeros(len(beats))

    def to_and_fro(beats: np.ndarray) -> np.ndarray:
        return 2 * np.pi * (beats + start) / (14 + 6 * size)

    def facing(beats: np.ndarray) -> np.ndarray:
        match kind:
            case "turn around":
                turns = (beats + start) / (3 + size)
                done = np.floor(turns)
                part = smooth_step((turns - done - 0.52) / 0.48)
                return side * np.pi * (done % 2 + part * (1 - 2 * (done % 2)) if alternating else done + part)
            case "spin":
                return side * 2 * np.pi * (beats + start) / (6 + 4 * size)
            case "walk away":
                return side * np.pi * smooth_step(0.5 + np.cos(to_and_fro(beats)))
            case "pace":
                return np.pi * alternating + (1 - 2 * alternating) * -1.5 * np.tanh(2.2 * np.cos(to_and_fro(beats)))
            case "look back":
                return np.pi + 0.5 * np.sin(to_and_fro(beats))
            case _:
                return np.zeros(len(beats))

    heading = facing(beats)
    match kind:
        case "walk away":
            path[:, 2] = 0.3 * np.sin(to_and_fro(beats))
        case "pace":
            path[:, 0] = 0.09 * np.sin(to_and_fro(beats))
        case "look back":
            glance = side * (0.75 + 0.55 * np.sin(2 * np.pi * beats / 3.7 + start))
    chest = 0.5 * np.tanh(2 * (facing(beats - 0.12) - heading))
    head = 0.8 * np.tanh((facing(beats + 0.25) - heading) / 0.8) - chest + glance
    return Turning(heading, path, chest, head)
