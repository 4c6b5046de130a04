"""Appearance of a person: proportions, skin, hair and clothes, drawn from a character's number."""

from dataclasses import dataclass

import numpy as np

from mimicmotion_jax.synthetic.skeleton import Proportions

_TAG = 0x6C6F

Colour = tuple[int, ...]  # RGB

SKINS: tuple[Colour, ...] = (
    (250, 214, 190), (244, 199, 168), (232, 180, 143), (214, 155, 116), (190, 128, 90), (156, 100, 70), (118, 74, 54),
    (92, 58, 44),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (40, 30, 32), (62, 42, 36), (96, 60, 40), (140, 88, 50), (196, 142, 76), (226, 188, 118), (164, 70, 44),
    (150, 146, 150), (58, 62, 104), (186, 92, 126),
)  # fmt: skip
# Matching colours of top, bottom and accent.
OUTFITS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((214, 66, 62), (40, 52, 92), (252, 226, 190)),
    ((244, 176, 48), (46, 74, 110), (255, 246, 226)),
    ((38, 140, 132), (58, 50, 80), (250, 208, 120)),
    ((66, 102, 190), (226, 206, 170), (250, 250, 246)),
    ((236, 120, 104), (52, 96, 96), (255, 236, 210)),
    ((120, 76, 152), (54, 54, 66), (240, 186, 210)),
    ((72, 142, 80), (124, 84, 58), (246, 226, 150)),
    ((246, 240, 226), (196, 68, 58), (48, 72, 112)),
    ((40, 46, 62), (150, 168, 186), (240, 196, 70)),
    ((226, 92, 140), (56, 64, 116), (255, 232, 220)),
    ((246, 206, 86), (118, 60, 84), (236, 110, 80)),
    ((98, 172, 206), (48, 58, 84), (250, 246, 236)),
    ((168, 52, 70), (214, 188, 150), (244, 208, 160)),
    ((106, 128, 66), (70, 54, 54), (240, 224, 180)),
    ((246, 146, 90), (66, 108, 146), (255, 244, 220)),
    ((56, 72, 128), (198, 82, 66), (246, 226, 186)),
)
SHOES: tuple[Colour, ...] = ((246, 242, 236), (44, 42, 50), (186, 58, 54), (120, 78, 50), (62, 92, 140), (236, 180, 60))
IRISES: tuple[Colour, ...] = ((74, 46, 32), (52, 34, 28), (70, 104, 84), (64, 100, 146))


@dataclass(frozen=True)
class Fabric:
    """A colour and a pattern in a second one; `pitch` is the pattern's period in heights."""

    colour: Colour
    pattern: str = "plain"
    accent: Colour = (255, 255, 255)
    pitch: float = 0.05


@dataclass(frozen=True)
class Character:
    """Appearance of one person; clothes reach `sleeves` and `legs` far: 0 none, 1 elbow or knee, 2 the whole limb."""

    body: Proportions
    skin: Colour
    hair: Colour
    hair_style: str
    hat: Colour
    iris: Colour
    smile: float
    blush: float
    top: Fabric
    bottom: Fabric
    sleeves: float
    legs: float
    skirt: float  # length in thighs; 0 is no skirt
    collar: str
    shoes: Colour
    socks: Colour


HAIR_STYLES = ("short", "side", "bob", "long", "ponytail", "bun", "afro", "spiky", "cap", "beanie")
PATTERNS = ("plain", "logo", "stripes", "columns", "checks", "dots", "band")


def make_character(number: int) -> Character:
    """Draw the character of a number."""
    random = np.random.default_rng([_TAG, number])
    top_colour, bottom_colour, accent = (_jitter(random, colour) for colour in OUTFITS[random.integers(len(OUTFITS))])
    dress = random.random() < 0.16
    skirt = random.uniform(0.6, 1.05) if dress or random.random() < 0.22 else 0.0
    top = Fabric(top_colour, str(random.choice(PATTERNS)), accent, random.uniform(0.042, 0.062))
    plain_bottom = Fabric(bottom_colour)
    patterned = Fabric(
        bottom_colour, str(random.choice(["checks", "columns", "dots"])), _towards(bottom_colour, accent), 0.055
    )
    bottom = top if dress else patterned if top.pattern == "plain" and random.random() < 0.5 else plain_bottom
    broad, narrow = random.normal(0, 1, 2).clip(-1.8, 1.8)
    return Character(
        body=Proportions(
            head=random.uniform(1.0, 1.18),
            shoulder=0.101 + 0.006 * broad,
            spine=random.uniform(0.268, 0.295),
            upper_arm=random.uniform(0.148, 0.162),
            forearm=random.uniform(0.134, 0.146),
            hand=random.uniform(0.117, 0.13),
            thigh=random.uniform(0.225, 0.245),
            calf=random.uniform(0.222, 0.242),
            girth=1.0 + 0.11 * float(np.clip(random.normal(), -1.5, 2)),
            waist=1.0 + 0.05 * broad - 0.07 * narrow,
            hips=1.0 + 0.07 * narrow,
        ),
        skin=_jitter(random, SKINS[random.integers(len(SKINS))], 5),
        hair=_jitter(
            random, HAIRS[random.choice(len(HAIRS), p=[0.18, 0.18, 0.16, 0.11, 0.09, 0.08, 0.08, 0.04, 0.04, 0.04])], 6
        ),
        hair_style=str(random.choice(HAIR_STYLES)),
        hat=_jitter(random, accent),
        smile=random.uniform(0.3, 1.0),
        iris=IRISES[random.integers(len(IRISES))],
        blush=random.uniform(0.15, 0.5),
        top=top,
        bottom=bottom,
        sleeves=float(random.choice([0.0, 0.75, 1.0, 2.0, 2.0])),
        legs=0.0 if skirt else float(random.choice([0.7, 0.95, 2.0, 2.0, 2.0])),
        skirt=skirt,
        collar=str(random.choice(["round", "round", "v", "high"])),
        shoes=SHOES[random.integers(len(SHOES))],
        socks=accent,
    )


def _jitter(random: np.random.Generator, colour: Colour, size: float = 9) -> Colour:
    return tuple(int(c) for c in np.clip(colour + random.normal(0, size, 3), 12, 252).round())


def _towards(colour: Colour, other: Colour, part: float = 0.45) -> Colour:
    return tuple(round(a + part * (b - a)) for a, b in zip(colour, other, strict=True))
