"""Motion of a person: tracks of angles and targets over time, drawn from a motion's number.

Every motion is a few poses of the arms, eased into one another on the beat, with swings on top: each track is smooth
and goes on for any length of time.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.config import Movement
from mimicmotion_jax.synthetic.heading import TURNING_KINDS, make_heading
from mimicmotion_jax.synthetic.kinematics import smooth_step
from mimicmotion_jax.synthetic.skeleton import Tracks

_TAG = 0x6D6F  # separates the random numbers from those of a character with the same number

# Poses of an arm: position of the wrist (degrees from sideways to the front, distance from the body's axis, height
# above the shoulders), turn of the forearm in degrees, closing of the fingers (0 to 1).
ARMS = {
    "hang": (15, 0.18, -0.27, 40, 0.3),
    "hip": (12, 0.155, -0.215, 60, 0.45),
    "side": (8, 0.37, -0.02, 20, 0.05),
    "low": (15, 0.3, -0.17, 30, 0.05),
    "up": (20, 0.15, 0.265, 0, 0.05),
    "diagonal": (12, 0.31, 0.17, 0, 0.05),
    "wave": (24, 0.25, 0.1, -5, 0.05),
    "show": (52, 0.21, -0.01, 0, 0.05),
    "chest": (78, 0.17, -0.1, 30, 0.2),
    "clap": (87, 0.21, -0.07, 20, 0.05),
    "cross": (122, 0.17, -0.075, 35, 0.1),
    "cross low": (114, 0.17, -0.2, 30, 0.2),
    "ahead": (76, 0.3, -0.03, 0, 0.1),
    "behind": (-98, 0.115, -0.235, 0, 0.4),
    "swing back": (-55, 0.17, -0.24, 40, 0.4),
    "swing ahead": (62, 0.2, -0.2, 30, 0.4),
    "head": (38, 0.135, 0.1, 10, 0.25),
}

# Kinds of motion: the poses to draw from, and whether both arms do the same.
KINDS: dict[str, tuple[Sequence[str], bool]] = {
    "dance": (("hang", "hip", "side", "up", "diagonal", "show", "chest", "cross", "low", "head", "cross low"), False),
    "mirror dance": (("hip", "side", "up", "diagonal", "show", "chest", "clap", "low", "ahead"), True),
    "walk": (("swing ahead", "swing back"), False),
    "wave": (("wave", "wave", "wave", "diagonal"), False),
    "circles": (("diagonal",), True),
    "cross": (("cross", "low", "cross low", "side"), True),
    "behind": (("behind", "hang", "behind", "hip"), False),
    "turn": (("side", "low", "chest", "cross"), False),
    "squat": (("ahead", "hip", "clap"), True),
    "hands": (("show", "chest", "wave", "show", "ahead"), True),
}


_WALKS = ("walk", "walk away", "pace")


def kinds_of(movement: Movement) -> dict[str, tuple[Sequence[str], bool]]:
    """Return the kinds of motion that a number draws from."""
    return KINDS | TURNING_KINDS if movement == "free" else KINDS


def kind_of(number: int, movement: Movement = "facing") -> str:
    """Return the kind of motion, a key of `kinds_of(movement)`, of a number."""
    return str(_generator(number).choice(list(kinds_of(movement))))


def make_tracks(number: int, num_frames: int, fps: float, movement: Movement = "facing") -> Tracks:
    """Draw the motion of a number, for `num_frames` frames at `fps` frames per second."""
    return tracks_at(number, np.arange(num_frames) / fps, movement)


def tracks_at(number: int, seconds: Float[np.ndarray, " frames"], movement: Movement = "facing") -> Tracks:
    """Draw the motion of a number at any times, negative ones included; a frame depends on its time only."""
    random = _generator(number)
    kind = str(random.choice(list(kinds_of(movement))))
    beat = random.uniform(0.95, 1.3)  # seconds from one pose to the next
    start = random.uniform(0, 100)
    beats = start + seconds / beat
    wrists, pronation, curl = _arms(random, kind, beats)
    pelvis, pelvis_turn, feet, foot_pitch = _steps(random, kind, beats)
    lively = random.uniform(0.5, 1.0)
    yaw = {"turn": 0.75, "walk": 0.22, "look back": 0.45}.get(kind, 0.3) * lively
    chest_turn = _swings(random, beats, (yaw, 0.06, 0.1 * lively), period=(2, 4))
    head_turn = _swings(random, beats, (0.28, 0.12, 0.14), period=(2, 4))
    if kind == "turn":
        head_turn[:, 0] -= 0.5 * chest_turn[:, 0]
    closing = 0.5 - 0.5 * np.cos(np.pi * beats[:, None] * random.choice([0.5, 1.0]) + _finger_delays(random))
    strength = 0.95 if kind == "hands" else random.choice([0.0, 0.0, 0.6])
    curl = curl + (0.97 - curl) * strength * closing[:, None]
    wrist_bend = _swings(random, beats, (0.25, 0.25), period=(1, 3))
    spread = 0.75 + _swings(random, beats, (0.45, 0.45), period=(1, 3))
    mouth = np.clip(random.uniform(-0.5, 0.5) + _swings(random, beats, (0.7,), period=(1, 3))[:, 0], 0, 1)
    blink = 1.6 * np.cos(2 * np.pi * (seconds / random.uniform(2.2, 3.5) + random.random())) ** 31 - 0.2
    heading, path = np.zeros(len(beats)), np.zeros((len(beats), 3))
    if movement == "free":
        turning = make_heading(random, kind, beats)
        heading, path = turning.heading, turning.path
        chest_turn[:, 0] += turning.chest
        head_turn[:, 0] += turning.head
    return Tracks(
        pelvis=pelvis,
        pelvis_turn=pelvis_turn,
        chest_turn=chest_turn,
        head_turn=head_turn,
        wrists=wrists,
        pronation=pronation,
        wrist_bend=wrist_bend,
        curl=curl,
        spread=spread,
        feet=feet,
        foot_pitch=foot_pitch if movement == "free" else 0 * foot_pitch,
        heading=heading,
        path=path,
        mouth=mouth,
        blink=np.clip(blink, 0, 1),
    )


def _generator(number: int) -> np.random.Generator:
    return np.random.default_rng([_TAG, number])


def _arms(
    random: np.random.Generator, kind: str, beats: np.ndarray
) -> tuple[Float[np.ndarray, "frames 2 3"], Float[np.ndarray, "frames 2"], Float[np.ndarray, "frames 2 5"]]:
    poses, mirrored = kinds_of("free")[kind]
    sequence = random.permutation(len(poses))[: random.integers(2, 6)] if len(poses) > 1 else np.zeros(1, int)
    left = [poses[int(i)] for i in sequence]
    if mirrored:
        right = left
    elif kind == "wave":
        right: list[str] = [str(random.choice(["hang", "hip", "behind", "chest"]))] * len(left)
    else:
        right = left[1:] + left[:1]  # a canon: what one arm does, the other does a beat later
    if random.random() < 0.5:
        left, right = right, left
    keys = np.array([[ARMS[name] for name in side] for side in (left, right)], float)  # [2, K, 5]
    keys += random.normal(0, (4, 0.008, 0.012, 8, 0.03), keys.shape if not mirrored else keys[:1].shape)
    arms = np.stack([_eased(side, beats) for side in keys], axis=1)  # [F, 2, 5]
    wrists = arms[..., :3] * np.array([np.pi / 180, 1, 1])
    phase = 2 * np.pi * beats[:, None] + np.array([0, random.choice([0, np.pi])])
    if kind == "circles":
        phase = phase * random.choice([-0.5, 0.5])
        wrists[..., 0] += 0.25 * np.sin(phase)
        wrists[..., 1] = 0.3 + 0.07 * np.cos(phase)
        wrists[..., 2] = 0.03 + 0.21 * np.sin(phase)
    else:
        raised = np.clip(6 * wrists[..., 2], 0, 1) if kind == "wave" else 0.25
        wrists[..., 1] += 0.06 * raised * np.sin(phase)
        wrists[..., 2] += 0.02 * np.cos(phase + 1)
    # A hand passes the shoulder on the outside: an arm folded on itself would swing wildly.
    beside = np.exp(-((wrists[..., 2] / 0.1) ** 2)) * np.maximum(np.cos(wrists[..., 0]), 0) ** 2
    wrists[..., 1] += beside * 0.03 * np.logaddexp(0, (0.26 - wrists[..., 1]) / 0.03)
    pronation = np.radians(arms[..., 3]) + 0.35 * np.sin(phase / 2 + random.uniform(0, 6))
    return wrists, pronation, np.clip(np.repeat(arms[..., 4:], 5, axis=-1), 0, 1)


def _steps(
    random: np.random.Generator, kind: str, beats: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "frames 2 3"], Float[np.ndarray, "frames 2"]]:
    """Return position and turn of the pelvis, positions of the feet, and their pitch."""
    sway = np.sin(np.pi * beats)
    both = np.array([0, np.pi])
    lifted = np.maximum(0, np.sin(np.pi * beats[:, None] + both))  # each foot in its own half of the step
    feet = np.zeros((len(beats), 2, 3))
    feet[..., 0] = random.uniform(0.055, 0.1)
    dip, width, height = {"squat": (0.14, 0.01, 0), **dict.fromkeys(_WALKS, (0.012, 0.012, 0.075))}.get(
        kind, (random.uniform(0.005, 0.045), random.uniform(0.005, 0.035), random.choice([0, 0, 0.035, 0.06]))
    )
    if kind in ("turn around", "spin"):
        height = max(height, 0.035)  # nobody turns with both feet on the floor
    feet[..., 1] = height * lifted**2
    feet[..., 2] = (0.05 if kind in _WALKS else 0.6 * height) * np.sin(np.pi * beats[:, None] + both - 0.6)
    # The heel leaves the floor first and comes down first.
    pitch = 8 * height * lifted * np.cos(np.pi * beats[:, None] + both)
    if kind == "squat":
        feet[..., 0] += 0.045
    # The pelvis is over the foot on the floor.
    pelvis = np.stack(
        [-width * sway, dip * (0.5 - 0.5 * np.cos(2 * np.pi * beats * (0.5 if kind == "squat" else 1))), 0 * sway],
        axis=-1,
    )
    drift = random.uniform(0, 0.05) * np.sin(2 * np.pi * beats / 9 + random.uniform(0, 6))
    pelvis[:, 0] += drift
    feet[..., 0] += drift[:, None] * np.array([1, -1])
    turn = _swings(random, beats, (0.14, 0.03, 0.05), period=(2, 4))
    turn[:, 0] += random.uniform(-0.3, 0.3)
    return pelvis, turn, feet, pitch


def _eased(keys: Float[np.ndarray, "keys values"], beats: np.ndarray) -> Float[np.ndarray, "frames values"]:
    """Move from key to key, one per beat, in a cycle: at rest at each key, fastest half-way."""
    first = np.floor(beats).astype(int)
    u = smooth_step((beats - first) / 0.92)[:, None]
    return keys[first % len(keys)] * (1 - u) + keys[(first + 1) % len(keys)] * u


def _swings(
    random: np.random.Generator, beats: np.ndarray, sizes: Sequence[float], period: tuple[float, float]
) -> Float[np.ndarray, "frames values"]:
    """Return a sum of two sines of different periods (in beats) for each size, which it never exceeds."""
    count = len(sizes)
    slow, fast = random.uniform(*period, (2, count))
    phases = random.uniform(0, 2 * np.pi, (2, count))
    turns = 2 * np.pi * beats[:, None]
    return np.array(sizes) * (0.65 * np.sin(turns / slow + phases[0]) + 0.35 * np.sin(turns / fast + phases[1]))


def _finger_delays(random: np.random.Generator) -> Float[np.ndarray, " 5"]:
    """Draw the phases at which fingers close: together, or one after the other."""
    return np.linspace(0, random.choice([0.0, 1.5]), 5)
