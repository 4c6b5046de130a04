"""DWPose: YOLOX-L finds the people, a 384x288 SimCC model their 133 points, as in the official release."""

import contextlib
import functools
import importlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from beartype import beartype
from jaxtyping import Float, UInt8, jaxtyped

from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hub import fetch

HUB_REPO = "yzd-v/DWPose"
HUB_FILES = ("yolox_l.onnx", "dw-ll_ucoco_384.onnx")  # person detector, whole-body model

Device = Literal["auto", "cpu", "cuda"]

_PERSON_SIZE = (640, 640)  # height, width
_POSE_SIZE = (384, 288)
_PERSON_SHAPES = ((1, 8400, 85),)  # raw boxes of strides 8, 16, 32; box, objectness, 80 COCO classes
_POSE_SHAPES = ((1, 133, 576), (1, 133, 768))  # two bins per pixel in x and y
_PERSON_CLASS = 0
_PERSON_THRESHOLD = 0.3
_NMS_THRESHOLD = 0.45


class DwposeDetector:
    """Finds everybody in a picture whom YOLOX-L calls a person with more than 0.3, each with 133 points.

    Differs from the official release in one thing: a picture without a person gives no people, where the release runs
    the whole-body model over the whole picture. Pictures go in as RGB, as there.

    Args:
        person_model: `yolox_l.onnx`.
        pose_model: `dw-ll_ucoco_384.onnx`.
        device: "auto" is CUDA where onnxruntime has it.

    Raises:
        InputError: rtmlib or onnxruntime is not installed, a file is missing, damaged or holds another model, or CUDA
            is requested and unavailable.
    """

    def __init__(self, person_model: str | Path, pose_model: str | Path, device: Device = "auto") -> None:
        try:
            import onnxruntime
            import rtmlib
        except ModuleNotFoundError as error:
            raise InputError(f'DWPose needs {error.name}; run pip install "mimicmotion_jax[dwpose]".') from None
        provider = _choose_device(device, onnxruntime.get_available_providers())
        with _loading(person_model, HUB_FILES[0]):
            self._person = rtmlib.YOLOX(
                str(person_model),
                model_input_size=_PERSON_SIZE,
                # Its mode "human" returns the boxes of all 80 classes.
                det_mode="multiclass",
                nms_thr=_NMS_THRESHOLD,
                score_thr=_PERSON_THRESHOLD,
                device=provider,
            )
            _check_outputs(self._person, _PERSON_SIZE, _PERSON_SHAPES, person_model, HUB_FILES[0])
        with _loading(pose_model, HUB_FILES[1]):
            # Any: rtmlib's annotations are not what it takes and gives.
            self._pose: Any = rtmlib.RTMPose(str(pose_model), model_input_size=_POSE_SIZE[::-1], device=provider)
            _check_outputs(self._pose, _POSE_SIZE, _POSE_SHAPES, pose_model, HUB_FILES[1])

    @jaxtyped(typechecker=beartype)
    def detect(
        self, frame: UInt8[np.ndarray, "height width 3"]
    ) -> tuple[Float[np.ndarray, "people 133 2"], Float[np.ndarray, "people 133"]]:
        """Find COCO-WholeBody points in pixels and scores, the surest person first.

        A score is the lower of the two SimCC maxima; it can exceed 1, and be negative where nothing was found.
        """
        boxes, classes = self._person(frame)
        people = [self._detect_pose(frame, box) for box in boxes.reshape(-1, 4)[classes == _PERSON_CLASS]]
        if not people:
            return np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32)
        points, scores = zip(*people, strict=True)
        return np.concatenate(points), np.concatenate(scores)

    def track(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`detect` for each frame: DWPose looks at every frame anew."""
        return map(self.detect, frames)

    def _detect_pose(self, frame: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        crop, center, scale = self._pose.preprocess(frame, box)
        simcc = self._pose.inference(crop)
        points, _ = self._pose.postprocess(simcc, center, scale)
        # rtmlib's score is the mean over the axes; DWPose's is the minimum.
        scores = np.minimum(simcc[0].max(-1), simcc[1].max(-1))
        return points, scores


def cached_models() -> tuple[Path, Path] | None:
    """Find DWPose's two files in the hub's cache; None if either is missing."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(HUB_REPO, name) for name in HUB_FILES]
    # Besides a path this returns None, or a marker for a file that the repository is known not to have.
    person, pose = (Path(path) if isinstance(path, str) else None for path in paths)
    return (person, pose) if person and pose else None


def download_models() -> tuple[Path, Path]:
    """Download DWPose's two files (350 MB) into the hub's cache.

    Raises:
        InputError: the download failed.
    """
    person, pose = fetch(HUB_REPO, *HUB_FILES)
    return person, pose


def hash_models(person_model: str | Path, pose_model: str | Path) -> tuple[str, str]:
    """SHA-256 of DWPose's two files, as hex strings.

    Raises:
        InputError: a file is missing.
    """
    hashes = []
    for path, name in zip((person_model, pose_model), HUB_FILES, strict=True):
        _check_file(path, name)
        status = Path(path).stat()
        hashes.append(_hash(Path(path), status.st_size, status.st_mtime_ns))
    return hashes[0], hashes[1]


@functools.cache
def _hash(path: Path, size: int, modified: int) -> str:
    return sha256_file(path)


def _check_file(path: str | Path, name: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}; DWPose needs {name}, from {HUB_REPO} on the hub.")


def _choose_device(device: Device, providers: list[str]) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"DWPose cannot run on '{device}'; choose auto, cpu or cuda.")
    has_cuda = "CUDAExecutionProvider" in providers
    if device == "cuda" and not has_cuda:
        raise InputError("this onnxruntime cannot use CUDA; install onnxruntime-gpu in its place, or choose cpu.")
    return "cuda" if device != "cpu" and has_cuda else "cpu"


@contextlib.contextmanager
def _loading(path: str | Path, name: str) -> Iterator[None]:
    """Report onnxruntime's errors about a model in one sentence, and keep rtmlib from printing."""
    ort_errors = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")

    _check_file(path, name)  # rtmlib would try to download it
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (ort_errors.InvalidProtobuf, ort_errors.InvalidGraph, ort_errors.InvalidArgument, ort_errors.Fail):
        raise InputError(f"{path} is not a working copy of {name}; get it again from {HUB_REPO} on the hub.") from None


def _check_outputs(model, size: tuple[int, int], shapes: tuple[tuple[int, ...], ...], path, name: str) -> None:
    """Run once on a black picture: file headers leave shapes open."""
    outputs = tuple(output.shape for output in model.inference(np.zeros((*size, 3), np.float32)))
    if outputs != shapes:
        raise InputError(f"{path} holds another model than {name}: its outputs are {outputs} and should be {shapes}.")
