"""Options that several commands share: pose detector, person to follow, style of drawn poses."""

from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass, values_of
from mimicmotion_jax.pose.detect import Detector, DetectorName, identify_detector, load_detector
from mimicmotion_jax.pose.render import DrawStyle

PersonChoice = Literal["largest", "central"] | Annotated[int, Field(ge=0)]


@config_dataclass
class DetectorOptions:
    """Choice of the pose detector and its model files."""

    detector: DetectorName = "auto"
    """Pose detector: dwpose (as in the official release), mediapipe (works offline), or auto for what is installed."""
    person_model: str | None = None
    """DWPose's yolox_l.onnx; null: from the hub."""
    pose_model: str | None = None
    """DWPose's dw-ll_ucoco_384.onnx; null: from the hub."""

    def load_detector(self) -> Detector:
        """Load the detector; errors are those of `detect.load_detector`."""
        return load_detector(self.detector, person_model=self.person_model, pose_model=self.pose_model)

    def identity(self) -> str:
        """Name the detector that runs and the content of its models (`detect.identify_detector`): a key for caches.

        Equal strings mean equal poses for equal pictures; "auto" and model files are resolved. Nothing is loaded.
        """
        return identify_detector(self.detector, person_model=self.person_model, pose_model=self.pose_model)


@config_dataclass
class DrawOptions:
    """Style of drawn poses, in training and sampling alike; meanings as in `render.DrawStyle`."""

    confidence: Literal["brightness", "threshold"] = "brightness"
    """Uncertain joints: brightness draws them darker, as the model was trained; threshold drops them."""
    antialias: bool = False
    """Draw small skeletons without gaps; the official release does not."""
    stroke_width: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Width of limbs and joints as a multiple of the official release's; as the model was trained."""

    @property
    def draw_style(self) -> DrawStyle:
        """These options as the argument of `render.draw_poses`."""
        return DrawStyle(**values_of(DrawOptions, self))
