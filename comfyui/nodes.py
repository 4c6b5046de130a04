"""ComfyUI nodes over the public API of `mimicmotion_jax`: load, detect, align, generate, decode, save.

An IMAGE is a float32 tensor [B, H, W, C] in [0, 1]. All else that is passed on is an object of `mimicmotion_jax`.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

# ComfyUI's own models share the card: jax would otherwise take three quarters of it at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import numpy as np
import torch

from mimicmotion_jax import Keypoints, MimicMotionPipeline, Video, detect_video, load_detector

CATEGORY = "MimicMotion"
PIPELINE, KEYPOINTS = "MIMICMOTION_PIPELINE", "MIMICMOTION_KEYPOINTS"
LATENTS, VIDEO = "MIMICMOTION_LATENTS", "MIMICMOTION_VIDEO"


class LoadCheckpoint:
    """Load the four networks."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    DESCRIPTION = "Load a checkpoint that `mimicmotion convert` or `mimicmotion train` wrote."
    RETURN_TYPES, RETURN_NAMES = (PIPELINE,), ("pipeline",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Describe the inputs."""
        where = "folder, gs:// or id on the Hugging Face hub"
        return {
            "required": {
                "checkpoint": ("STRING", {"default": "checkpoints/mimicmotion", "tooltip": where}),
                "dtype": (["auto", "bfloat16", "float32"], {"tooltip": "auto: bfloat16, and float32 on a CPU"}),
            }
        }

    def load(self, checkpoint: str, dtype: Any) -> tuple[MimicMotionPipeline]:
        """Load the checkpoint."""
        return (MimicMotionPipeline.from_pretrained(checkpoint, None if dtype == "auto" else dtype),)


class DetectPose:
    """Detect the keypoints of everybody in pictures."""

    CATEGORY, FUNCTION = CATEGORY, "detect"
    DESCRIPTION = "Detect body, hands and face of everybody in the frames of a video, or in one picture."
    RETURN_TYPES, RETURN_NAMES = (KEYPOINTS,), ("keypoints",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Describe the inputs."""
        chosen = "auto: DWPose where its files are, else MediaPipe"
        return {
            "required": {
                "images": ("IMAGE",),
                "detector": (["auto", "dwpose", "mediapipe"], {"tooltip": chosen}),
            },
            "optional": {"fps": ("FLOAT", {"forceInput": True, "tooltip": "of a video"})},
        }

    def detect(self, images: torch.Tensor, detector: Any, fps: float = 24.0) -> tuple[Keypoints]:
        """Detect everybody."""
        return (detect_video(_to_pixels(images), load_detector(detector), fps, len(images)),)


class Align:
    """Fit a motion to the person in the reference image, and draw it."""

    CATEGORY, FUNCTION = CATEGORY, "align"
    DESCRIPTION = (
        "Crop the reference image and fit the motion to the person in it; the skeletons begin with its own pose."
    )
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "IMAGE", "FLOAT"), ("reference", "skeletons", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Describe the inputs."""
        return {
            "required": {
                "pipeline": (PIPELINE,),
                "image": ("IMAGE", {"tooltip": "reference image"}),
                "motion": (KEYPOINTS,),
                "align": (["affine", "limb", "none"], {"tooltip": "limb: for a body of other proportions"}),
                "resolution": ("INT", {"default": 576, "min": 64, "max": 4096, "step": 64, "tooltip": "short side"}),
                "aspect": (["auto", "portrait", "landscape", "square"],),
                "num_frames": ("INT", {"default": 0, "min": 0, "max": 100_000, "tooltip": "0: all of the motion"}),
                "stride": ("INT", {"default": 1, "min": 1, "max": 100, "tooltip": "take every n-th frame"}),
                "person": ("INT", {"default": -1, "min": -1, "max": 100, "tooltip": "in the motion; -1: the largest"}),
            },
            "optional": {"image_pose": (KEYPOINTS, {"tooltip": "of the reference image; detected if it is missing"})},
        }

    def align(
        self,
        pipeline: MimicMotionPipeline,
        image: torch.Tensor,
        motion: Keypoints,
        num_frames: int,
        person: int,
        image_pose: Keypoints | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Prepare the inputs of the model."""
        prepared = pipeline.prepare(
            _to_pixels(image)[0],
            motion,
            image_pose=image_pose,
            num_frames=num_frames or None,
            person="largest" if person < 0 else person,
            **options,
        )
        return _to_images(prepared.image[None]), _to_images(prepared.poses[: prepared.shape[0]]), prepared.fps


class Generate:
    """Denoise the latents of a video."""

    CATEGORY, FUNCTION = CATEGORY, "generate"
    DESCRIPTION = "Denoise the latents of a video of the reference image from skeletons that were drawn in it."
    RETURN_TYPES, RETURN_NAMES = (LATENTS,), ("latents",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Describe the inputs."""
        seed = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}
        return {
            "required": {
                "pipeline": (PIPELINE,),
                "reference": ("IMAGE",),
                "skeletons": ("IMAGE", {"tooltip": "at the size of the reference, its own pose first"}),
                "fps": ("FLOAT", {"forceInput": True}),
                "seed": ("INT", seed),
                "num_inference_steps": ("INT", {"default": 25, "min": 1, "max": 1000}),
                "guidance_scale": ("FLOAT", {"default": 2.0, "min": 1.0, "max": 100.0, "step": 0.1}),
                "window_size": ("INT", {"default": 0, "min": 0, "max": 1024, "tooltip": "0: the checkpoint's"}),
                "fusion": (["progressive", "official", "uniform", "none"], {"tooltip": "of overlapping windows"}),
            }
        }

    def generate(
        self,
        pipeline: MimicMotionPipeline,
        reference: torch.Tensor,
        skeletons: torch.Tensor,
        fps: float,
        num_inference_steps: int,
        window_size: int,
        **options: Any,
    ) -> tuple[Video]:
        """Denoise; the latents keep the frame of the reference, which the decoder sees as well."""
        latents = pipeline(
            _to_pixels(reference)[0],
            _to_pixels(skeletons),
            motion_kind="skeletons",
            motion_fps=fps,
            num_inference_steps=num_inference_steps,
            window_size=window_size or None,
            output_type="latent",
            keep_reference_frame=True,
            callback_on_step_end=_step_callback(num_inference_steps),
            **options,
        )
        return (latents,)


class Decode:
    """Decode latents to frames."""

    CATEGORY, FUNCTION = CATEGORY, "decode"
    DESCRIPTION = "Decode latents to frames, without the one that stands for the reference image."
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "FLOAT", VIDEO), ("images", "fps", "video")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Describe the inputs."""
        chunk = {"default": 8, "min": 1, "max": 1024, "tooltip": "frames that are decoded together"}
        return {
            "required": {"pipeline": (PIPELINE,), "latents": (LATENTS,), "decode_chunk_size": ("INT", chunk)},
        }

    def decode(
        self, pipeline: MimicMotionPipeline, latents: Video, decode_chunk_size: int
    ) -> tuple[torch.Tensor, float, Video]:
        """Decode in chunks."""
        options = dataclasses.replace(latents.prepared.options, decode_chunk_size=decode_chunk_size)
        chunks = pipeline.decode(np.asarray(latents.frames)[None], options, progress=True)
        frames = np.concatenate(list(chunks), axis=1)[0, 1:]
        return torch.from_numpy(frames), latents.fps, Video(frames, latents.prepared)


class SaveVideo:
    """Write a video with the signs of its origin."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "save", True
    DESCRIPTION = "Write an MP4 to the output folder, with watermark and content credentials as generated."
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Describe the inputs."""
        return {"required": {"video": (VIDEO,), "filename_prefix": ("STRING", {"default": "video/MimicMotion"})}}

    def save(self, video: Video, filename_prefix: str) -> dict[str, Any]:
        """Write the file under the next free number."""
        import folder_paths  # of ComfyUI

        _, height, width = video.prepared.shape
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        file = f"{name}_{number:05}_.mp4"
        video.save(os.path.join(folder, file))
        return {"ui": {"images": [{"filename": file, "subfolder": subfolder, "type": "output"}], "animated": (True,)}}


def _to_pixels(images: torch.Tensor) -> np.ndarray:
    """Return an IMAGE as uint8 [B, H, W, 3]."""
    return np.round(images[..., :3].cpu().numpy() * 255).clip(0, 255).astype(np.uint8)


def _to_images(pixels: np.ndarray) -> torch.Tensor:
    """Return uint8 [B, H, W, 3] as an IMAGE."""
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def _step_callback(num_steps: int) -> Callable[..., None] | None:
    """Callback that shows the progress and ends the generation on "Cancel"; None outside ComfyUI."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:
        return None
    bar = ProgressBar(num_steps)

    def on_step_end(pipeline: Any, step: int, timestep: float, tensors: dict[str, Any]) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(step + 1)

    return on_step_end


NODE_CLASS_MAPPINGS = {
    f"MimicMotion{node.__name__}": node for node in (LoadCheckpoint, DetectPose, Align, Generate, Decode, SaveVideo)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "MimicMotionLoadCheckpoint": "Load MimicMotion Checkpoint",
    "MimicMotionDetectPose": "Detect Pose",
    "MimicMotionAlign": "Align Motion",
    "MimicMotionGenerate": "Generate (MimicMotion)",
    "MimicMotionDecode": "Decode (MimicMotion)",
    "MimicMotionSaveVideo": "Save Video (MimicMotion)",
}
