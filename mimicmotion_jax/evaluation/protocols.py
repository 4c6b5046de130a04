"""Named protocols: sequences, region and size of a comparison. Numbers of different protocols do not compare.

The name and the hash of the protocol are reported beside every number. The hash covers every field below and `RULES`,
the version of the rules that all protocols share:

- The first frame of a sequence is the reference; frames 1, 2, … are compared.
- A video with as many frames as the true one also begins with the reference, which is skipped in both; any other
  begins with frame 1. Surplus frames of the longer video are not compared; the row reports the number compared.
- True frames are cropped centrally to the aspect ratio of the generated ones; then the protocol's `region` is taken
  from both, then both are resized (bilinear, antialiased) to `size`.
- Metrics (`metrics`): SSIM, PSNR (at most 100 dB per frame), LPIPS, FVD, FID-VID. Where the background is known, the
  person is every pixel that differs from it, in true and generated frames alike; hands are the padded boxes of hands
  whose true keypoints are confident (`pose.hands`).
- Means are over all compared frames of all sequences, Frechet distances over all their 16-frame windows.
"""

import dataclasses
from typing import Literal

from mimicmotion_jax.evaluation.records import sha256_json
from mimicmotion_jax.runtime.errors import InputError

RULES = 1
"""Version of the rules in the module's docstring."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Evaluation protocol; every field enters its hash."""

    name: str
    source: str
    """Origin of the protocol, for readers of the results."""
    sequences: tuple[str, ...] | None
    """Names of the sequences; leading zeros of numbers are ignored (335 is 00335). None: all in the folder."""
    inputs: Literal["picture", "square"]
    """Input of the model: reference and poses, or their central squares."""
    region: Literal["picture", "square"]
    """Compared region: whole pictures or their central squares."""
    size: int | None
    """Short side of the compared frames, in pixels; None: the true frames' own."""
    resolution: int | None
    """Short side of generated videos, in pixels, unless `width` and `height` are given; None: the true frames' size."""
    image_fps: float
    """Frames per second of folders of pictures without keypoints (keypoints store a frame rate)."""
    foreground_threshold: int = 30
    """Difference from the background above which a pixel belongs to the person: 0 to 255, in any channel."""

    @property
    def sha256(self) -> str:
        """Hash of all fields and of `RULES`."""
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
    """Return the protocol called `name`.

    Raises:
        InputError: there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol '{name}'; choose {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
