"""`MimicMotionPipeline`: a reference image and a driving motion in, a video of that person moving that way out."""

import dataclasses
import functools
import hashlib
import inspect
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float
from PIL import Image

from mimicmotion_jax import __version__, checkpoint, sharding
from mimicmotion_jax.config import build_config, to_dict
from mimicmotion_jax.convert.lora import check_strength, parse_lora, read_lora
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.engine import Batch, Engine, Networks, OnStepEnd
from mimicmotion_jax.inference.execution import Program
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.lora import apply_loras
from mimicmotion_jax.inference.motion import Motion
from mimicmotion_jax.inference.options import SAVE_SECONDS, PipelineOptions, merge_defaults
from mimicmotion_jax.inference.output import Chunks, Video, VideoStream
from mimicmotion_jax.inference.picture import Picture
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.inference.progress import Progress, array_sha256, describe
from mimicmotion_jax.inference.signs import input_sha256
from mimicmotion_jax.models.build import NETWORKS, abstract_network, random_network
from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.quantization import QUANTIZED, is_quantized, quantize_network
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.provenance.credentials import Origin
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import report_out_of_memory
from mimicmotion_jax.runtime.seeds import fold_seed

DTypeName = Literal["float32", "bfloat16"]
Quantization = Literal["int8"]
P = ParamSpec("P")
R = TypeVar("R")


def _signature_of(
    model: Callable[Concatenate[Any, P], Any],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Give a method the signature of `model`, for `help` and editors, and refuse other arguments."""

    def decorate(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        signature = inspect.signature(model)

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return method(bound.arguments.pop("self"), **bound.arguments)

        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    return decorate


class MimicMotionPipeline:
    """The four networks on a mesh of devices, and how they make a video.

        pipe = MimicMotionPipeline.from_pretrained("checkpoints/mimicmotion")
        video = pipe("person.jpg", "dance.mp4", align="limb", seed=7)
        video.save("person.mp4")

    Attributes:
        unet: SVD's UNet, which denoises.
        vae: SVD's VAE, between pixels and latents.
        image_encoder: CLIP's image encoder, which sees the reference image.
        pose_net: PoseNet, which sees the drawn skeletons.
        config: sizes of the networks and the window size of the checkpoint.
        defaults: options that the checkpoint brings (size, steps, drawing), used where a call gives none.
        mesh: devices; every device holds the parameters, the windows of a video are spread over them.
        preparer: makes the inputs; the last files that it detected poses in cost nothing again.
    """

    def __init__(
        self,
        config: ModelConfig,
        unet: UNet,
        vae: VAE,
        image_encoder: CLIPImageEncoder,
        pose_net: PoseNet,
        mesh: Mesh | None = None,
        defaults: Mapping[str, Any] | None = None,
        model_sha256: str | None = None,
    ):
        """Take networks that lie on `mesh` already; None: on all local devices.

        Args:
            config: see the class.
            unet: likewise.
            vae: likewise.
            image_encoder: likewise.
            pose_net: likewise.
            mesh: likewise.
            defaults: likewise.
            model_sha256: hash of the checkpoint's manifest, for the origin of videos; None for weights from nowhere.
        """
        self.unet, self.vae, self.image_encoder, self.pose_net = unet, vae, image_encoder, pose_net
        self.config, self.defaults = config, dict(defaults or {})
        self.mesh = mesh or sharding.sampling_mesh()
        self._model_sha256 = model_sha256
        self._engine = Engine(config, Networks(unet, vae, image_encoder, pose_net), self.mesh)
        self.preparer = Preparer(config.size_multiple)
        self._weights_sha256: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        dtype: DTypeName | None = None,
        mesh: Mesh | None = None,
        *,
        num_devices: int | None = None,
        lora: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        quantize: Quantization | None = None,
        progress: bool = False,
    ) -> Self:
        """Load a checkpoint that `mimicmotion convert` or `mimicmotion train` wrote.

        Args:
            source: its folder, local or gs://, the id of a converted checkpoint on the Hugging Face hub, or "small" or
                "small-student", which are in the package.
            dtype: of parameters and computation; None takes bfloat16 on accelerators and float32 on CPU.
            mesh: from `sharding.sampling_mesh`; None makes one of `num_devices`.
            num_devices: devices to spread windows over; None takes all local ones.
            lora: a LoRA to merge into the weights, or several, each as "FILE" or "FILE:strength"; see
                `load_lora_weights`.
            quantize: "int8" keeps the weights of the UNet and the image encoder in eight bits, half of bfloat16's
                memory; the result changes a little (docs/faster.md). None keeps them as they are.
            progress: show a bar.

        Raises:
            InputError: no checkpoint there, a damaged one, one of another architecture, too few devices, weights that a
                device has no room for, a LoRA that cannot be read or belongs to another model, or an unknown
                `quantize`.
        """
        _check_quantization(quantize)
        directory = checkpoint.resolve(source)
        config = checkpoint.read_config(directory)
        mesh = mesh or sharding.sampling_mesh(num_devices)
        place, param_dtype = sharding.replicated(mesh), _dtype(dtype, mesh)
        with report_out_of_memory("use dtype bfloat16 or a device with more memory"):
            networks = {
                name: checkpoint.load_network(directory, name, config, param_dtype, place, progress)
                for name in NETWORKS
            }
        pipeline = cls(
            config,
            **networks,
            mesh=mesh,
            defaults=checkpoint.read_sampling(directory),
            model_sha256=checkpoint.manifest_sha256(directory),
        )
        pipeline._weights_sha256 = checkpoint.weights_sha256(directory)
        given = [lora] if isinstance(lora, str | os.PathLike) else lora
        pipeline._apply_loras([parse_lora(os.fspath(text)) for text in given], merge=True)
        if quantize is not None:
            pipeline._quantize()
        return pipeline

    @classmethod
    def random(
        cls, config: ModelConfig, seed: int = 0, dtype: DTypeName | None = None, mesh: Mesh | None = None
    ) -> Self:
        """Make a pipeline with random weights, for tests and measurements."""
        mesh = mesh or sharding.sampling_mesh()
        generator = np.random.default_rng(seed)
        networks = {name: random_network(name, config, generator, _dtype(dtype, mesh)) for name in NETWORKS}
        return cls(config, **jax.device_put(networks, sharding.replicated(mesh)), mesh=mesh)

    @classmethod
    def abstract(
        cls,
        config: ModelConfig,
        dtype: DTypeName = "bfloat16",
        mesh: Mesh | None = None,
        quantize: Quantization | None = None,
    ) -> Self:
        """Make a pipeline of shapes, without weights: it can only be lowered (`lower`).

        Args:
            config: sizes of the networks.
            dtype: of parameters and computation.
            mesh: its devices need not be at hand.
            quantize: see `from_pretrained`.
        """
        _check_quantization(quantize)
        mesh = mesh or sharding.sampling_mesh()
        place = sharding.replicated(mesh)
        networks = {name: abstract_network(name, config) for name in NETWORKS}
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype), sharding=place), networks)
        pipeline = cls(config, **shapes, mesh=mesh)
        if quantize is not None:
            pipeline._quantize()
        return pipeline

    def lower(self, num_frames: int, height: int, width: int, options: SamplingConfig) -> dict[str, Program]:
        """Programs of a call for one video, by name: functions that lower them, and how often each is called.

        Args:
            num_frames: of the video.
            height: pixels.
            width: pixels.
            options: of sampling.
        """
        return self._engine.lower(num_frames, height, width, options)

    def load_lora_weights(self, source: str | os.PathLike[str], strength: float = 1.0, *, merge: bool = True) -> None:
        """Add a LoRA, as `mimicmotion train` with `lora.rank`, PEFT or diffusers write it, to those added before.

        Args:
            source: a .safetensors file or a folder with one, local or gs://, or an id on the Hugging Face hub.
            strength: factor of its effect, -10 to 10.
            merge: add it to the UNet's kernels, which costs nothing in sampling; False keeps it apart, so that half
                precision does not round the sum. PoseNet, if the LoRA brings one, is interpolated in either case.

        Raises:
            InputError: a file that cannot be read, a LoRA of another model, a strength out of range, one with adapters
                of convolutions that is to be kept apart, or one to be merged into weights that are in int8.
        """
        if merge and is_quantized(self.unet):
            raise InputError(
                "a LoRA cannot be merged into weights in int8: give it to from_pretrained(lora=...), or keep it apart "
                "with merge=False."
            )
        self._apply_loras([(source, check_strength(strength, "strength"))], merge)

    def _apply_loras(self, sources: Sequence[tuple[str | os.PathLike[str], float]], merge: bool) -> None:
        if not sources:
            return
        loras = [(read_lora(source, self.config), strength) for source, strength in sources]
        apply_loras(self.unet, self.pose_net, loras, sharding.replicated(self.mesh), merge=merge)
        self._change_identity("".join(f"{lora.sha256} {strength} {merge} " for lora, strength in loras))

    def _quantize(self) -> None:
        for name in QUANTIZED:
            quantize_network(getattr(self, name))
        self._change_identity("int8")

    def _change_identity(self, change: str) -> None:
        """Give the changed weights hashes of their own."""
        if self._weights_sha256 is not None:
            self._weights_sha256 = hashlib.sha256((self._weights_sha256 + change).encode()).hexdigest()
        if self._model_sha256 is not None:
            self._model_sha256 = hashlib.sha256((self._model_sha256 + change).encode()).hexdigest()

    def save_pretrained(self, directory: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write a checkpoint that `from_pretrained` reads: weights in this pipeline's dtype, sizes and defaults.

        Args:
            directory: local or gs://.
            overwrite: replace a checkpoint that is there.

        Raises:
            InputError: something is there already, it cannot be written, or the weights are in int8.
        """
        if is_quantized(self.unet):
            raise InputError("weights in int8 cannot be saved: load them without quantize.")
        states = {name: nnx.state(getattr(self, name)) for name in NETWORKS}
        checkpoint.save_checkpoint(directory, self.config, states, sampling=self.defaults, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a MimicMotion checkpoint",
    ) -> str:
        """Upload a checkpoint to the Hugging Face hub, where `from_pretrained(repo_id)` finds it.

        Args:
            repo_id: "owner/name"; made if it is not there.
            private: visibility of a new repository; None is the owner's default.
            token: None takes the one of `hf auth login`.
            commit_message: of the commit.

        Returns:
            the commit's URL.

        Raises:
            InputError: no permission, or no connection.
        """
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder) / "checkpoint"
            self.save_pretrained(directory)
            return checkpoint.push(directory, repo_id, private=private, token=token, commit_message=commit_message)

    def __call__(
        self,
        image: Picture | Sequence[Picture],
        motion: Motion | Sequence[Motion],
        *,
        image_pose: str | os.PathLike[str] | Keypoints | Sequence[Keypoints] | None = None,
        preset: Literal["exact", "fast", "draft"] | None = None,
        resolution: int | None = None,
        aspect: Literal["auto", "portrait", "landscape", "square"] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        start: float | None = None,
        stride: int | None = None,
        scenes: Literal["all", "first", "longest"] | int | None = None,
        motion_fps: float | None = None,
        motion_size: tuple[int, int] | None = None,
        motion_kind: Literal["auto", "frames", "skeletons"] | None = None,
        tolerate_truncation: bool | None = None,
        detector: Literal["auto", "dwpose", "mediapipe"] | None = None,
        person_model: str | None = None,
        pose_model: str | None = None,
        person: Literal["largest", "central"] | int | None = None,
        reference_person: Literal["largest", "central"] | int | None = None,
        gaps: Literal["interpolate", "dark"] | None = None,
        align: Literal["none", "affine", "limb"] | None = None,
        smooth: bool | None = None,
        confidence: Literal["brightness", "threshold"] | None = None,
        antialias: bool | None = None,
        stroke_width: float | None = None,
        num_inference_steps: int | None = None,
        sampler: Literal["euler", "heun", "dpmpp_2m"] | None = None,
        schedule: Literal["karras", "ays", "exponential"] | Sequence[float] | None = None,
        guidance_scale: float | None = None,
        min_guidance_scale: float | None = None,
        max_guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        cache_interval: int | None = None,
        cache_depth: int | None = None,
        pose_strength: float | None = None,
        pose_start: float | None = None,
        pose_end: float | None = None,
        image_strength: float | None = None,
        seed: int | Sequence[int] | None = None,
        fusion: Literal["progressive", "official", "uniform", "none"] | None = None,
        window_size: int | None = None,
        window_overlap: int | None = None,
        group_size: int | None = None,
        memory: Literal["auto", "fast", "low"] | None = None,
        periodic_noise: bool | None = None,
        decode_chunk_size: int | None = None,
        decode_overlap: int | None = None,
        fps: int | None = None,
        motion_bucket_id: int | None = None,
        noise_aug_strength: float | None = None,
        latents: Float[np.ndarray, "*b f h w c"] | None = None,
        noise: Float[np.ndarray, "*b t h w c"] | None = None,
        noise_aug: Float[np.ndarray, "*b height width 3"] | None = None,
        output_type: Literal["np", "pil", "latent"] = "np",
        keep_reference_frame: bool = False,
        callback_on_step_end: Callable[[Any, int, float, dict[str, jax.Array]], dict[str, jax.Array] | None]
        | None = None,
        progress: bool = True,
        resume_dir: str | os.PathLike[str] | None = None,
        save_seconds: float = SAVE_SECONDS,
    ) -> Any:
        """Generate a video in memory (`stream` never holds a long one whole).

        Options that are None take the checkpoint's value (`defaults`), else the default given here.

        Args:
            image: reference image: a path, PIL image or uint8 array [H, W, 3]; or a list of these, for as many videos.
            motion: driving motion: a path (video, animation, folder of pictures, keypoints in any layout that
                `pose.files.load_keypoints` reads), `Keypoints`, a list of PIL images or uint8 frames [F, H, W, 3]; or
                skeletons that are drawn already, uint8 [F, H, W, 3] at the size of `image`, the reference's own pose
                first, which are used as they are. With a list of images a list of motions, or one for all.
            image_pose: keypoints of the reference image, whole or cropped, or a list of these; None detects them.
            preset: steps, noise levels and guidance together: "exact" (25 steps), "fast" (a third of the work) or
                "draft" (a seventh); other options given here win; None takes none of them (docs/faster.md).
            resolution: short side of the video, 64 to 4096 pixels; 576.
            aspect: shape of the video; "auto" follows the image.
            height: height of the video, 1 to 8192 pixels; with `width` in place of `resolution` and `aspect`.
            width: width of the video, 1 to 8192 pixels.
            num_frames: most frames of the result, 1 to 100,000; None takes all of the motion.
            start: second of the motion at which the video begins, from 0; 0.
            stride: take every n-th frame of the motion, 1 to 10,000; 1. The result's frame rate falls alike.
            scenes: of a motion with hard cuts: "all" of them as one motion, which the report then says, the "first",
                the "longest", or a number from 0. They are counted from `start` on, and `num_frames` is the most that
                is taken of one; "all".
            motion_fps: frame rate of a motion that does not say it, 0.01 to 1000; 24, and 30 for OpenPose's files.
            motion_size: width and height of the video behind keypoints that do not say it, 1 to 65,536.
            motion_kind: meaning of arrays and PIL images in `motion`; "auto": skeletons if most pixels are black.
            tolerate_truncation: use the readable part of a video that breaks off; False.
            detector: pose detector; "auto" is DWPose where its files are, else MediaPipe.
            person_model: file of DWPose's person detector; None takes the hub's.
            pose_model: file of DWPose's pose model; None takes the hub's.
            person: person to follow in the motion: "largest", "central" or a number from 0; "largest".
            reference_person: person of the reference image who is to move, likewise.
            gaps: joints lost for up to half a second: "interpolate" or leave them "dark"; "interpolate".
            align: fit the motion to the person: "affine" (one map for the clip, as the official release), "limb"
                (limb by limb, for other proportions) or "none"; "affine".
            smooth: filter jitter out of the motion; False.
            confidence: draw uncertain joints darker ("brightness") or drop them ("threshold"); "brightness".
            antialias: draw smooth edges; False, as the official release.
            stroke_width: width of drawn limbs, times the official release's, 0 to 20; 1.
            num_inference_steps: denoising steps, 1 to 1000; 25.
            sampler: solver: "euler", as the official release; "heun", two predictions a step; "dpmpp_2m"
                (DPM-Solver++), for few steps; "euler".
            schedule: noise levels: "karras", as SVD has them; "ays" (Align Your Steps), for about ten steps;
                "exponential"; or a list of levels that descend to 0, which sets the number of steps; "karras".
            guidance_scale: classifier-free guidance, 1 (off, half the work) to 100; 2.
            min_guidance_scale: guidance of the first frame, 1 to 100; from it guidance changes evenly to the last
                frame's; None takes `guidance_scale`.
            max_guidance_scale: guidance of the last frame, likewise.
            guidance_interval: lowest and highest noise level (sigma) with guidance; steps outside of it take half the
                work; None guides all.
            cache_interval: compute the whole UNet every n-th step only, and its last layers between (DeepCache), 1 to
                the number of steps; 1.
            cache_depth: number of last layers of the UNet that are computed in every step, 1 to 100, of 12 in the full
                model; 1.
            pose_strength: factor of the pose's features, 0 to 10; 1.
            pose_start: part of the steps after which the pose has an effect, 0 to 1; 0.
            pose_end: part of the steps after which it has none any more, `pose_start` to 1; 1.
            image_strength: factor of the reference image's CLIP embedding, 0 to 10; its latents stay; 1.
            seed: of the noise, 0 to 2^64 - 1; 0. A list for a list of images.
            fusion: joining of overlapping windows: "progressive" (the paper's Algorithm 1), "official", "uniform"
                (MultiDiffusion) or "none"; "progressive".
            window_size: frames that are denoised together, 2 to 1024; the checkpoint's.
            window_overlap: frames that neighbouring windows share, 0 to 1023; 6, or less for a small window.
            group_size: windows that one device predicts together, 1 to 1024; 1.
            memory: save nothing ("fast"), or predict guidance's branches in turn and keep idle networks in the host's
                memory, as NumPy arrays ("low"); "auto": as little of it as the device needs. Results are alike.
            periodic_noise: repeat the noise of one window along time, as the official release; False.
            decode_chunk_size: frames that are decoded together, 1 to 1024; 8.
            decode_overlap: frames that neighbouring chunks share, below `decode_chunk_size`; a quarter of it.
            fps: condition of the model, 1 to 1000, not the frame rate of the result; 7.
            motion_bucket_id: condition of the model: how much motion, 0 to 1023; 127.
            noise_aug_strength: noise on the reference image, 0 to 10; 0.
            latents: initial latents, standard normal, channels last, a frame for the reference and each of the motion;
                None draws them from `seed`.
            noise: the same for one window only, repeated along time as in the official release.
            noise_aug: standard normal, scaled by `noise_aug_strength`; None draws it from `seed`.
            output_type: "np" for float32 frames in [0, 1], "pil" for PIL images, "latent" for latents.
            keep_reference_frame: keep the first frame, which stands for the reference image; False.
            callback_on_step_end: called as in diffusers, `callback(pipe, step, timestep, {"latents": ...})`; may return
                {"latents": ...} to go on with. An exception in it ends the call.
            progress: show a bar per stage.
            resume_dir: folder, local or gs://, for the progress of a long video: after a kill the same call goes on
                from there, to the same bits; a call with other inputs, options or weights starts again. Nothing remains
                in it when the videos are complete.
            save_seconds: time between two saves of the progress; a video that takes less saves nothing.

        Returns:
            a `Video`, or a list of them for a list of images.

        Raises:
            InputError: an input that cannot be read or used, an option out of range, nobody to be seen, too little
                memory, or a result that is not finite.
        """
        arguments = dict(locals())  # every argument above, by name
        del arguments["self"]
        if output_type not in ("np", "pil", "latent"):
            raise InputError(f"output_type must be 'np', 'pil' or 'latent', not '{output_type}'.")
        prepared = self._prepare_all(**arguments)
        videos = self._collect(prepared, arguments)
        return videos if _is_batch(image) else videos[0]

    def open_progress(
        self,
        batch: Sequence[Prepared],
        folders: Sequence[epath.PathLike],
        seconds: float = SAVE_SECONDS,
        arrays: Mapping[str, np.ndarray | None] | None = None,
        keep_frames: bool = True,
    ) -> Progress:
        """Open the folders where `generate` saves the progress of these videos, and finds it after a kill.

        Args:
            batch: the videos.
            folders: one for each, local or gs://.
            seconds: least time between two saves.
            arrays: further inputs that decide the frames.
            keep_frames: save decoded frames as well as latents.
        """
        given = {name: array_sha256(np.asarray(array)) for name, array in (arrays or {}).items() if array is not None}
        common = {
            **{"software": __version__, "jax": jax.__version__, "weights": self._identity()},
            **{"dtype": str(self.unet.conv_in.kernel.dtype), "devices": sharding.describe_mesh(self.mesh)},
        }
        descriptions = [describe(item, **common, **given) for item in batch]
        return Progress(folders, descriptions, seconds, keep_frames)

    @_signature_of(__call__)
    def stream(self, **arguments: Any) -> VideoStream:
        """Generate one video frame by frame: a `VideoStream` to iterate over or to save.

        Arguments as in `__call__`, but for lists of images and `output_type`. Inputs are prepared at once; the rest is
        done when the first frame is asked for. With `resume_dir`, frames that were finished before a kill come back as
        multiples of 1/255, as files hold them.
        """
        (prepared,) = self._prepare_all(**arguments)
        first = int(not arguments["keep_reference_frame"])
        saved = self._progress([prepared], [""], arguments, keep_frames=True)
        return VideoStream(prepared, self._generate([prepared], arguments, saved), first, saved)

    @_signature_of(__call__)
    def prepare(self, **arguments: Any) -> Prepared:
        """Prepare the inputs of one video: cropped image, aligned skeletons, report. Arguments as in `__call__`.

        `generate` goes on from there: so the host can prepare the next videos while the devices are busy.
        """
        (prepared,) = self._prepare_all(**arguments)
        return prepared

    def generate(self, batch: Sequence[Prepared], progress: bool = True, saved: Progress | None = None) -> Chunks:
        """Generate videos of equal shape and options (but for their seeds) together.

        Args:
            batch: from `prepare`.
            progress: show a bar per stage.
            saved: progress of these videos, from `open_progress`; the caller removes it when they are complete.

        Yields:
            frames [B, n, H, W, 3] in [0, 1] in order, without the one that stands for the reference image.

        Raises:
            InputError: too little memory, or a result that is not finite.
        """
        return self._generate(batch, {"progress": progress}, saved)

    def decode(
        self, latents: Float[np.ndarray, "b f h w c"], options: SamplingConfig, progress: bool = False
    ) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
        """Yield frames in [0, 1] of latents, chunk by chunk; see `Engine.decode`."""
        return self._engine.decode(latents, options, progress)

    def _prepare_all(
        self, image: Any, motion: Any, image_pose: Any, progress: bool, **arguments: Any
    ) -> list[Prepared]:
        seed = arguments.pop("seed")
        names = {field.name for field in dataclasses.fields(PipelineOptions)}
        given = {name: value for name, value in arguments.items() if name in names and value is not None}
        options = build_config(PipelineOptions, merge_defaults(self.defaults, given), "the call")
        images = list(image) if _is_batch(image) else [image]
        motions = list(motion) if _is_batch(image) and _is_list_of_motions(motion) else [motion] * len(images)
        seeds = list(seed) if isinstance(seed, Sequence) else [options.seed if seed is None else seed] * len(images)
        poses = list(image_pose) if isinstance(image_pose, list | tuple) else [image_pose] * len(images)
        if len({len(images), len(motions), len(seeds), len(poses)}) > 1:
            raise InputError(
                f"{len(images)} images go with as many motions, seeds and image poses, or with one for all of them."
            )
        prepared = [
            self.preparer(
                image, motion, build_config(PipelineOptions, to_dict(options) | {"seed": seed}), pose, progress
            )
            for image, motion, seed, pose in zip(images, motions, seeds, poses, strict=True)
        ]
        return [
            dataclasses.replace(item, origin=Origin(self._model_sha256, input_sha256(image), input_sha256(motion)))
            for item, image, motion in zip(prepared, images, motions, strict=True)
        ]

    def _collect(self, prepared: Sequence[Prepared], arguments: dict[str, Any]) -> list[Video]:
        """Generate videos in memory, those of equal shape together."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, item in enumerate(prepared):
            groups[item.shape].append(index)
        first, videos, saved = int(not arguments["keep_reference_frame"]), {}, []
        for indices in groups.values():
            batch = [prepared[index] for index in indices]
            names = [str(index) if len(prepared) > 1 else "" for index in indices]
            saved.append(self._progress(batch, names, arguments, keep_frames=False))
            if arguments["output_type"] == "latent":
                frames = self._denoise(batch, arguments, saved[-1])[:, first:]
            else:
                frames = np.concatenate(list(self._generate(batch, arguments, saved[-1])), axis=1)
            for index, item, result in zip(indices, batch, frames, strict=True):
                shown = _to_pil(result) if arguments["output_type"] == "pil" else result
                videos[index] = Video(shown, item, first)
        for progress in filter(None, saved):
            progress.remove()
        return [videos[index] for index in range(len(prepared))]

    def _generate(self, batch: Sequence[Prepared], arguments: dict[str, Any], saved: Progress | None) -> Chunks:
        skip = int(not arguments.get("keep_reference_frame"))
        latents = self._denoise(batch, arguments, saved)
        for frames in self._engine.decode(latents, batch[0].options, arguments["progress"], saved):
            if frames.shape[1] > skip:
                yield frames[:, skip:]
            skip = max(0, skip - frames.shape[1])

    def _denoise(
        self, batch: Sequence[Prepared], arguments: dict[str, Any], saved: Progress | None
    ) -> Float[np.ndarray, "b f h w c"]:
        latents, noise = arguments.get("latents"), arguments.get("noise")
        if latents is not None and noise is not None:
            raise InputError("latents and noise are the same for all frames and for one window; give one of them.")
        if latents is not None and np.shape(latents)[-4] != batch[0].shape[0]:
            raise InputError(
                f"latents must have {batch[0].shape[0]} frames, the reference's and the motion's, not "
                f"{np.shape(latents)[-4]}."
            )
        inputs = Batch(
            images=np.stack([item.image for item in batch]),
            poses=[item.poses for item in batch],
            seeds=np.array([fold_seed(item.options.seed) for item in batch], np.uint32),
            latents=noise if latents is None else latents,
            noise_aug=arguments.get("noise_aug"),
        )
        on_step_end = self._step_callback(arguments.get("callback_on_step_end"))
        return self._engine.denoise(inputs, batch[0].options, on_step_end, arguments["progress"], saved)

    def _progress(
        self, batch: Sequence[Prepared], names: Sequence[str], arguments: dict[str, Any], keep_frames: bool
    ) -> Progress | None:
        """Open the progress of videos of a call, in folders of these names; None without `resume_dir`."""
        if arguments["resume_dir"] is None:
            return None
        if arguments["callback_on_step_end"] is not None:
            raise InputError("a call with callback_on_step_end cannot be resumed; leave out one of it and resume_dir.")
        root = absolute_path(arguments["resume_dir"])
        arrays = {name: arguments[name] for name in ("latents", "noise", "noise_aug")}
        folders = [root / name for name in names]
        return self.open_progress(batch, folders, arguments["save_seconds"], arrays, keep_frames)

    def _identity(self) -> str:
        """SHA-256 that tells these weights from others."""
        if self._weights_sha256 is None:
            networks = (self.unet, self.vae, self.image_encoder, self.pose_net)
            self._weights_sha256 = array_sha256(*map(np.asarray, jax.tree.leaves([*map(nnx.state, networks)])))
        return self._weights_sha256

    def _step_callback(self, callback: Callable[..., Any] | None) -> OnStepEnd | None:
        if callback is None:
            return None

        def on_step_end(step: int, timestep: float, latents: jax.Array) -> jax.Array:
            result = callback(self, step, timestep, {"latents": latents})
            return latents if result is None else result.get("latents", latents)

        return on_step_end


def _check_quantization(quantize: str | None) -> None:
    if quantize not in (None, "int8"):
        raise InputError(f'quantize must be "int8" or None, not {quantize!r}.')


def _is_batch(image: Any) -> bool:
    return isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4)


def _is_list_of_motions(motion: Any) -> bool:
    """Return True for several motions, False for the frames of one."""
    if isinstance(motion, np.ndarray):
        return motion.ndim == 5

    def is_frame(item: Any) -> bool:
        return isinstance(item, Image.Image) or (isinstance(item, np.ndarray) and item.ndim < 4)

    return isinstance(motion, list | tuple) and not all(map(is_frame, motion))


def _to_pil(frames: Float[np.ndarray, "f height width 3"]) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in np.round(frames * 255).astype(np.uint8)]


def _dtype(name: DTypeName | None, mesh: Mesh) -> jnp.dtype:
    if name is None:
        name = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise InputError(f"dtype must be 'float32' or 'bfloat16', not '{name}'.")
    return jnp.dtype(name)
