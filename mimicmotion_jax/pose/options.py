"""Options that several commands share: how poses are detected, whom to follow, how poses are drawn."""

from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass, values_of
from mimicmotion_jax.pose.detect import Detector, load_detector
from mimicmotion_jax.pose.render import DrawStyle

PersonChoice = Literal["largest", "central"] | Annotated[int, Field(ge=0)]


@config_dataclass
class DetectorOptions:
    """What detected poses depend on, beside the pictures."""

    detector: Literal["auto", "dwpose", "mediapipe"] = "auto"
    person_model: str | None = None  # DWPose's yolox_l.onnx
    pose_model: str | None = None  # DWPose's dw-ll_ucoco_384.onnx

    def load_detector(self) -> Detector:
        """The detector; errors as `detect.load_detector`."""
        return load_detector(self.detector, person_model=self.person_model, pose_model=self.pose_model)


@config_dataclass
class DrawOptions:
    """How poses are drawn, in training and sampling alike; meanings as in `render.DrawStyle`."""

    confidence: Literal["brightness", "threshold"] = "brightness"
    antialias: bool = False
    stroke_width: Annotated[float, Field(gt=0, le=20)] = 1.0

    @property
    def draw_style(self) -> DrawStyle:
        """The same for `render.draw_poses`."""
        return DrawStyle(**values_of(DrawOptions, self))
