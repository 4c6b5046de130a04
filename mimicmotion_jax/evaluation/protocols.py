"""Named protocols: which sequences, which part of the picture, at which size. Numbers of different ones do not compare.

The name and the hash of a protocol stand beside every number. The hash covers every field below and `RULES`, the
version of what the code does with all protocols alike:

- The first frame of a sequence is the reference; frames 1, 2, … are compared.
- A video of as many frames as the true one begins with the reference too, which is left out on both sides; any other
  begins with frame 1. What the longer of the two has more is not compared, and the row says how many frames were.
- True frames are cropped in their middle to the shape of the generated ones; then the protocol's `region` is taken
  from both, then both are resized (bilinear, antialiased) to `size`.
- Videos against true ones by `metrics`: SSIM, PSNR (at most 100 dB per frame), LPIPS, FVD, FID-VID. Where the
  background is known, the person is what differs from it, in true and generated frames alike; hands are the padded
  boxes of hands whose true keypoints are sure (`pose.hands`).
- A mean is over all compared frames of all sequences, a Frechet distance over all their 16-frame windows.
"""

import dataclasses
from typing import Literal

from mimicmotion_jax.evaluation.records import sha256_json
from mimicmotion_jax.runtime.errors import InputError

RULES = 1


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is evaluated, and how; every field is part of the hash."""

    name: str
    source: str
    """Where it comes from, for readers of the results."""
    sequences: tuple[str, ...] | None
    """Names, of which numbers match whatever zeros lead (335 is 00335); None: all that there are."""
    inputs: Literal["picture", "square"]
    """What the model is given: the reference and its poses, or their central squares."""
    region: Literal["picture", "square"]
    """What is compared: the pictures or their central squares."""
    size: int | None
    """The short side at which frames are compared, pixels; None: the true frames' own."""
    resolution: int | None
    """The short side at which videos are generated unless `width` and `height` say otherwise; None: the true frames'
    own size."""
    image_fps: float
    """Frames per second of sequences that are folders of pictures and come without keypoints, which would say it."""
    foreground_threshold: int = 30
    """Levels of 255 by which a pixel must differ from a known background, in some channel, to belong to the person."""

    @property
    def sha256(self) -> str:
        """Of all fields and the rules."""
        return sha256_json({"rules": RULES, **dataclasses.asdict(self)})


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="tiktok",
            source="MimicMotion, section 4.2 and table 1: TikTok dataset, sequences 335 to 340; reference and poses "
            "cropped in their middle to the model's shape, central squares of the results compared. The paper does "
            "not say at which size; here it is the model's short side.",
            sequences=("335", "336", "337", "338", "339", "340"),
            inputs="picture",
            region="square",
            size=576,
            resolution=576,
            image_fps=30.0,
        ),
        Protocol(
            name="disco",
            source="DisCo's loader of the TikTok dataset: range(335, 340), which is 335 to 339; central squares at "
            "256x256 throughout. DisCo's published numbers are of another test set.",
            sequences=("335", "336", "337", "338", "339"),
            inputs="square",
            region="square",
            size=256,
            resolution=576,
            image_fps=30.0,
        ),
        Protocol(
            name="synthetic",
            source="all sequences of a folder written by prepare_data.py --synthetic N --test-set, whole pictures at "
            "their own size.",
            sequences=None,
            inputs="picture",
            region="picture",
            size=None,
            resolution=None,
            image_fps=15.0,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol '{name}'; choose {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
