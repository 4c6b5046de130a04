"""Record of the dataset: a video with the keypoints of one person and, optionally, its encodings."""

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Self

import numpy as np
from jaxtyping import Float16, UInt8

from mimicmotion_jax.pose.keypoints import ARRAYS, GROUPS, Keypoints
from mimicmotion_jax.video.frame_rate import exact_rate

NAME = "pose_videos"
VERSION = "1.0.0"
"""Version of the format, as TFDS counts: a record with another first number cannot be read."""

ENCODINGS = ("latents", "embeddings")


@dataclasses.dataclass(frozen=True, eq=False)
class PoseVideo:
    """Video as it is stored."""

    name: str
    """Name of the file and, if the video was cut, the range of frames."""
    source: str
    """SHA-256 of the original file."""
    video: bytes
    """MP4 file with H.264, see `codec`."""
    keypoints: Keypoints
    """Keypoints of one person, with the picture's size and the frame rate."""
    latents: Float16[np.ndarray, "frames h w c"] | None = None
    """Mean of the VAE's posterior of every frame, not multiplied by the scaling factor."""
    embeddings: Float16[np.ndarray, "frames d"] | None = None
    """CLIP embedding of every frame."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.keypoints.num_frames

    @property
    def rate(self) -> Fraction:
        """Exact number of frames per second."""
        return exact_rate(self.keypoints.fps)

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Decode the given frames.

        Raises:
            InputError: a damaged record.
        """
        from mimicmotion_jax.data.codec import decode_frames  # needs PyAV, which stored encodings do without

        return decode_frames(self.video, indices, self.rate)

    def poses(self, indices: Sequence[int]) -> Keypoints:
        """Return the keypoints of the given frames."""
        chosen = {name: getattr(self.keypoints, name)[list(indices)] for name in ARRAYS}
        return dataclasses.replace(self.keypoints, **chosen)

    def to_example(self) -> dict[str, Any]:
        """Return the record as the dictionary of arrays that `features` describes."""
        example = {
            "name": self.name,
            "source": self.source,
            "video": np.frombuffer(self.video, np.uint8),
            "fps": self.keypoints.fps,
            "num_frames": self.num_frames,
            "width": self.keypoints.width,
            "height": self.keypoints.height,
            **{name: getattr(self.keypoints, name)[:, 0] for name in ARRAYS},
        }
        return example | {name: getattr(self, name) for name in ENCODINGS if getattr(self, name) is not None}

    @classmethod
    def from_example(cls, example: Mapping[str, Any]) -> Self:
        """Make a record from the arrays that TFDS read, or that an .npz holds.

        Raises:
            KeyError, TypeError, ValueError: damaged arrays.
        """
        keypoints = Keypoints(
            **{name: np.expand_dims(example[name], 1) for name in ARRAYS},
            width=int(example["width"]),
            height=int(example["height"]),
            fps=float(example["fps"]),
        )
        if keypoints.num_frames != example["num_frames"]:
            raise ValueError(f"{keypoints.num_frames} frames have keypoints, not {example['num_frames']}")
        return cls(
            name=_text(example["name"]),
            source=_text(example["source"]),
            video=example["video"].tobytes(),
            keypoints=keypoints,
            **{name: example[name] for name in ENCODINGS if name in example},
        )


def features(latent_shape: Sequence[int] | None = None, embedding_size: int | None = None) -> Any:
    """Describe a record to TFDS; encodings are included if their sizes per frame are given."""
    import tensorflow_datasets as tfds

    def array(dtype: type, *shape: int) -> tfds.features.Tensor:
        # As bytes: TFDS would widen small types, and lists of numbers take long to parse.
        return tfds.features.Tensor(shape=(None, *shape), dtype=dtype, encoding="bytes")

    specification = {
        "name": tfds.features.Text(),
        "source": tfds.features.Text(),
        "video": array(np.uint8),
        "fps": np.float64,
        "num_frames": np.int32,
        "width": np.int32,
        "height": np.int32,
    }
    for name, points in GROUPS.items():
        specification |= {name: array(np.float32, *points, 2), f"{name}_score": array(np.float32, *points)}
    if latent_shape is not None and embedding_size is not None:
        specification |= {"latents": array(np.float16, *latent_shape), "embeddings": array(np.float16, embedding_size)}
    return tfds.features.FeaturesDict(specification)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
