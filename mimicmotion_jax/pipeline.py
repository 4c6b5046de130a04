"""`MimicMotionPipeline`: a reference image and drawn poses in, a video out; the stages of `stages` in their order."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, UInt8
from tqdm import tqdm

from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.config import build_config
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.diffusion.edm import karras_sigmas
from mimicmotion_jax.diffusion.fusion import WindowPlan
from mimicmotion_jax.diffusion.noise import frame_noise, pixel_noise
from mimicmotion_jax.diffusion.sampler import bucket, group_plan
from mimicmotion_jax.inference import stages
from mimicmotion_jax.inference.decoding import decode_in_chunks
from mimicmotion_jax.models import encode
from mimicmotion_jax.models.build import NETWORKS, abstract_network
from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import fetch

DTypeName = Literal["float32", "bfloat16"]
_POSE_CHUNK = 16  # drawn poses per call of PoseNet


class PipelineOutput(NamedTuple):
    """Frames [F, H, W, 3] in [0, 1], or latents [F, h, w, 4]; with a leading batch axis where the input had one."""

    frames: Float[np.ndarray, "..."]


class MimicMotionPipeline:
    """The four networks on a mesh, and how they make a video.

    Attributes:
        config: sizes of the networks and the window size of the checkpoint.
        mesh: devices; every device holds the parameters, the windows of a video are spread over them.
    """

    def __init__(
        self, config: ModelConfig, unet: UNet, vae: VAE, image_encoder: CLIPImageEncoder, pose_net: PoseNet, mesh: Mesh
    ):
        self.config, self.mesh = config, mesh
        self.unet, self.vae, self.image_encoder, self.pose_net = unet, vae, image_encoder, pose_net

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        dtype: DTypeName | None = None,
        mesh: Mesh | None = None,
        progress: bool = False,
    ) -> Self:
        """Load a checkpoint that `convert_weights.py` or `train.py` wrote.

        Args:
            directory: the checkpoint's; `gs://` works.
            dtype: of parameters and computation; None takes bfloat16 on accelerators and float32 on CPU.
            mesh: from `sharding.sampling_mesh`; None takes all local devices.
            progress: show a bar.

        Raises:
            InputError: no checkpoint there, a damaged one, or one of another architecture.
        """
        config = checkpoint.read_config(directory)
        mesh = mesh or sharding.sampling_mesh()
        networks = {}
        for name in NETWORKS:
            graph, abstract = nnx.split(abstract_network(name, config))
            params = checkpoint.load_params(
                directory, name, abstract, _dtype(dtype, mesh), sharding.replicated(mesh), progress
            )
            networks[name] = nnx.merge(graph, params)
        return cls(config, **networks, mesh=mesh)

    @classmethod
    def random(
        cls, config: ModelConfig, seed: int = 0, dtype: DTypeName | None = None, mesh: Mesh | None = None
    ) -> Self:
        """A pipeline with random weights, for tests and demonstrations.

        Drawn with NumPy leaf by leaf: compiling the initialisation of a small network takes longer than running it.
        """
        mesh = mesh or sharding.sampling_mesh()
        generator, param_dtype = np.random.default_rng(seed), _dtype(dtype, mesh)

        def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
            if leaf.ndim > 1:  # a matrix or a kernel: variance 1 / fan-in
                values = generator.standard_normal(leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
            else:  # norms multiply by one; biases and mixing factors are zero
                values = np.full(leaf.shape, 1.0 if path[-1] == "scale" else 0.0)
            return values.astype(param_dtype)

        networks = {}
        for name in NETWORKS:
            graph, state = nnx.split(abstract_network(name, config))
            leaves = [(path, v.replace(draw(path, v.get_value()))) for path, v in nnx.to_flat_state(state)]
            networks[name] = nnx.merge(graph, nnx.from_flat_state(leaves))
        return cls(config, **jax.device_put(networks, sharding.replicated(mesh)), mesh=mesh)

    def __call__(
        self,
        image: UInt8[np.ndarray, "*b height width 3"],
        pose_images: "PoseBatch | UInt8[np.ndarray, '*b f height width 3']",
        *,
        noise: Float[np.ndarray, "*b t h w c"] | None = None,
        noise_aug: Float[np.ndarray, "*b height width 3"] | None = None,
        keep_reference_frame: bool = False,
        output_type: Literal["np", "latent"] = "np",
        progress: bool = False,
        **options: Any,
    ) -> PipelineOutput:
        """Generate a video, or a batch of them, and hold it in memory (`latents` and `decode` stream instead).

        Args:
            image: the reference picture, or a batch of them of equal size.
            pose_images: drawn skeletons of the size of the picture, the reference's own pose first: an array,
                `pose.render.DrawnPoses`, or a `PoseBatch` of these, which are drawn when they are needed.
            noise: standard normal, for one window or more, repeated along time; None draws it from the seed.
            noise_aug: standard normal, to be scaled by `noise_aug_strength`; None draws it from the seed.
            keep_reference_frame: whether the first frame, which stands for the reference, stays in the result.
            output_type: "np" for frames, "latent" for latents.
            progress: show a bar per stage.
            **options: fields of `SamplingConfig`.

        Raises:
            InputError: sizes that do not fit the networks or each other, unknown or impossible options, a result that
                is not a number.
        """
        if output_type not in ("np", "latent"):
            raise InputError(f"output_type must be 'np' or 'latent', not '{output_type}'.")
        config = build_config(SamplingConfig, options, "the sampling options")
        latents = self.latents(image, pose_images, config, noise=noise, noise_aug=noise_aug, progress=progress)
        skip = 0 if keep_reference_frame else 1
        if output_type == "latent":
            frames = latents[:, skip:]
        else:
            frames = np.concatenate(list(self.decode(latents, config, progress=progress)), axis=1)[:, skip:]
        return PipelineOutput(frames[0] if np.ndim(image) == 3 else frames)

    def latents(
        self,
        image: UInt8[np.ndarray, "*b height width 3"],
        pose_images: "PoseBatch | UInt8[np.ndarray, '*b f height width 3']",
        config: SamplingConfig,
        *,
        seeds: Sequence[int] | None = None,
        noise: Float[np.ndarray, "*b t h w c"] | None = None,
        noise_aug: Float[np.ndarray, "*b height width 3"] | None = None,
        progress: bool = False,
    ) -> Float[np.ndarray, "b f h w c"]:
        """Denoised latents of the video, the reference's frame first; arguments as in `__call__`.

        Args:
            image: as in `__call__`.
            pose_images: as in `__call__`.
            config: sampling options.
            seeds: one per sample; None takes `config.seed` for all.
            noise: as in `__call__`.
            noise_aug: as in `__call__`.
            progress: as in `__call__`.

        Raises:
            InputError: as `__call__`.
        """
        images = image[None] if np.ndim(image) == 3 else image
        poses = pose_images if len(pose_images.shape) == 5 else PoseBatch([pose_images])
        self._check_sizes(images, poses)
        batch, num_frames = poses.shape[:2]
        seeds = np.full(batch, config.seed) if seeds is None else np.asarray(seeds)
        plan = config.plan(num_frames, self.config.window_size)
        padded = padded_frames(plan)
        capacity = config.plan(padded, self.config.window_size).num_windows

        with self._precision():
            images_on_device = self._put(images)
            context = encode.embed_image(self.image_encoder, images_on_device)
            image_latents = self._encode_reference(images_on_device, seeds, noise_aug, config.noise_aug_strength)
            features = self._pose_features(poses, padded, progress)
            start = self._initial_noise(seeds, padded, image_latents.shape[1:], plan, config, noise)
            latents = self._denoise(start, context, image_latents, features, plan, capacity, config, progress)
        return _check_finite(fetch(latents)[:, :num_frames])

    def decode(
        self, latents: Float[np.ndarray, "b f h w c"], config: SamplingConfig, progress: bool = False
    ) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
        """Yield frames in [0, 1] in order, so that a long video never lies in memory whole.

        Each device decodes a chunk of each sample at a time, while the caller has the frames of the chunks before.

        Raises:
            InputError: frames that are not numbers.
        """

        def decode(chunks: Float[np.ndarray, "n t h w c"]) -> Float[jax.Array, "n t height width 3"]:
            with self._precision():
                return stages.decode_chunks(self.vae, jax.device_put(chunks, sharding.by_window(self.mesh)))

        size, overlap, together = config.decode_chunk_size, config.chunk_overlap, self.mesh.size
        with tqdm(total=latents.shape[1], desc="decoding", unit="frame", disable=not progress) as bar:
            for frames in decode_in_chunks(decode, latents, size, overlap, together):
                bar.update(frames.shape[1])
                yield _check_finite(frames)

    def _check_sizes(self, images: np.ndarray, poses: "np.ndarray | PoseBatch") -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(f"image must be uint8 [H, W, 3] or [B, H, W, 3], not {images.dtype} {list(images.shape)}.")
        if len(poses.shape) != 5 or poses.shape[0] != len(images) or tuple(poses.shape[2:]) != images.shape[1:]:
            raise InputError(
                f"pose_images must be drawn at the size of the image, [F, {images.shape[1]}, {images.shape[2]}, 3] "
                f"for each of {len(images)}, not {list(poses.shape)}."
            )
        if poses.shape[1] < 1:
            raise InputError("pose_images is empty; it needs at least the pose of the reference image.")
        multiple = self.config.size_multiple
        if any(size % multiple or size == 0 for size in images.shape[1:3]):
            height, width = (max(multiple, round(size / multiple) * multiple) for size in images.shape[1:3])
            raise InputError(
                f"height and width must be multiples of {multiple}, not {images.shape[1]}x{images.shape[2]}; the "
                f"nearest is {height}x{width}."
            )

    def _encode_reference(
        self, images: jax.Array, seeds: np.ndarray, noise_aug: np.ndarray | None, strength: float
    ) -> jax.Array:
        if strength == 0:
            noise_aug = np.zeros(images.shape, np.float32)
        elif noise_aug is None:
            noise_aug = pixel_noise(jnp.asarray(seeds), *images.shape[1:])
        return encode.encode_image(self.vae, images, self._put(strength * np.reshape(noise_aug, images.shape)))

    def _pose_features(self, poses: "np.ndarray | PoseBatch", padded: int, progress: bool) -> jax.Array:
        batch, num_frames, height, width, _ = poses.shape
        scale = self.config.vae.downscale
        shape = (batch, padded, height // scale, width // scale, self.config.pose_net.stem_channels)
        features = jnp.zeros(shape, self.unet.conv_in.kernel.dtype, device=sharding.replicated(self.mesh))
        chunk = min(_POSE_CHUNK, padded)
        with tqdm(total=num_frames, desc="poses", unit="frame", disable=not progress) as bar:
            for start in range(0, padded, chunk):
                start = min(start, padded - chunk)
                # Beyond the end the last pose is held: a short video is denoised in a whole window, as it was trained.
                last = min(start, num_frames - 1)
                pixels = poses[:, last : start + chunk]
                pixels = np.concatenate([pixels, np.repeat(pixels[:, -1:], chunk - pixels.shape[1], axis=1)], axis=1)
                features = stages.add_pose_features(self.pose_net, features, self._put(pixels), start)
                bar.update(min(start + chunk, num_frames) - bar.n)
        return features

    def _initial_noise(
        self,
        seeds: np.ndarray,
        padded: int,
        shape: tuple[int, ...],
        plan: WindowPlan,
        config: SamplingConfig,
        noise: np.ndarray | None,
    ) -> jax.Array:
        if noise is None:
            period = plan.indices.shape[1] if config.periodic_noise else None
            return frame_noise(jnp.asarray(seeds), padded, *shape, period=period)
        noise = np.asarray(noise, np.float32)
        noise = noise[None] if noise.ndim == 4 else noise
        if noise.shape[2:] != tuple(shape) or len(noise) not in (1, len(seeds)):
            raise InputError(f"noise must be [frames, {', '.join(map(str, shape))}], not {list(noise.shape[1:])}.")
        noise = np.broadcast_to(noise, (len(seeds), *noise.shape[1:]))
        return jnp.asarray(noise[:, np.arange(padded) % noise.shape[1]])

    def _denoise(
        self,
        noise: jax.Array,
        context: jax.Array,
        image_latents: jax.Array,
        features: jax.Array,
        plan: WindowPlan,
        capacity: int,
        config: SamplingConfig,
        progress: bool,
    ) -> jax.Array:
        sigmas = karras_sigmas(config.num_inference_steps)
        guided = config.guidance_scale > 1
        batch = noise.shape[0]
        ids = np.tile(np.float32([config.fps - 1, config.motion_bucket_id, config.noise_aug_strength]), (batch, 1))
        conditions = stages.make_conditions(self.unet, context, self._put(ids), plan.indices.shape[1], guided)
        mesh, group = lay_out_windows(self.mesh, self.config, config, capacity, noise.shape)
        # With cuDNN's attention all arrays of a program must lie on one mesh. The devices are the same ones: nothing is
        # copied.
        put = functools.partial(jax.device_put, device=sharding.replicated(mesh))
        networks, constants = put((self.unet, self.pose_net)), put((conditions, image_latents, features))
        grouped, scale = put(group_plan(plan, group, capacity)), put(np.float32(config.guidance_scale))
        latents = put(noise * np.sqrt(sigmas[0] ** 2 + 1))
        # A bar needs the host between steps: the scan is run in equal slices, which share one compiled program.
        length = _slice_length(config.num_inference_steps) if progress else config.num_inference_steps
        with tqdm(total=config.num_inference_steps, desc="denoising", unit="step", disable=not progress) as bar:
            for start in range(0, config.num_inference_steps, length):
                noise_levels = put(sigmas[start : start + length + 1])
                latents = stages.run_denoising(
                    *networks, latents, noise_levels, grouped, *constants, scale, guided=guided, mesh=mesh
                )
                if progress:
                    latents.block_until_ready()
                bar.update(length)
        return latents

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, sharding.replicated(self.mesh))

    def _precision(self) -> contextlib.AbstractContextManager:
        """float32 means float32: GPUs and TPUs would otherwise multiply in shorter formats."""
        full = self.unet.conv_in.kernel.dtype == jnp.float32
        return jax.default_matmul_precision("highest") if full else contextlib.nullcontext()


def _dtype(name: DTypeName | None, mesh: Mesh) -> jnp.dtype:
    if name is None:
        name = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise InputError(f"dtype must be 'float32' or 'bfloat16', not '{name}'.")
    return jnp.dtype(name)


def lay_out_windows(
    mesh: Mesh, model: ModelConfig, config: SamplingConfig, num_windows: int, latents: tuple[int, ...]
) -> tuple[Mesh, int]:
    """The mesh of the denoising loop, and how many windows it predicts together.

    Args:
        mesh: the pipeline's.
        model: sizes of the networks.
        config: sampling options.
        num_windows: of the video.
        latents: shape of the video's latents, [B, F, h, w, c].
    """
    batch, _, height, width, _ = latents
    # A device that has a part of a window must have nothing else, or merging batch and frames would move data.
    frames = (config.window_size or model.window_size) if batch == 1 else 1
    positions = (height // model.unet.downscale) * (width // model.unet.downscale)
    branches = 2 if config.guidance_scale > 1 else 1
    windows = sharding.window_mesh(mesh, num_windows, branches, frames, positions)
    parallel = windows.shape[sharding.WINDOWS]
    per_device = 1 if windows.shape[sharding.FRAMES] > 1 else min(config.group_size, -(-num_windows // parallel))
    return windows, per_device * parallel


def padded_frames(plan: WindowPlan) -> int:
    """Frames that the arrays of a video are padded to, so that videos of similar length share a program."""
    num_frames, window_size = int(plan.indices.max()) + 1, plan.indices.shape[1]
    return num_frames if num_frames == window_size else bucket(-(-num_frames // 4)) * 4


def _check_finite(values: np.ndarray) -> np.ndarray:
    """Refuse what is no picture: as pixels it would look like a video that has merely turned out badly."""
    if not np.isfinite(values).all():
        raise InputError(
            "the result is not a number: the weights are damaged (fetch or convert them again), or an option such as "
            "guidance_scale is out of all proportion."
        )
    return values


def _slice_length(steps: int) -> int:
    """The largest divisor of `steps` that gives at least five slices, for a bar that moves."""
    return max(n for n in range(1, max(steps // 5, 1) + 1) if steps % n == 0)


class PoseBatch:
    """Lazily drawn sequences of poses, each [F, H, W, 3] and of equal shape, seen as one array [B, F, H, W, 3]."""

    def __init__(self, sequences: Sequence[Any]):
        if len({tuple(poses.shape) for poses in sequences}) != 1:
            raise InputError(f"a batch needs motions of one shape, not {[list(p.shape) for p in sequences]}.")
        self.sequences = sequences
        self.shape = (len(sequences), *sequences[0].shape)

    def __getitem__(self, key: tuple[slice, slice]) -> UInt8[np.ndarray, "b n height width 3"]:
        """Draw some frames of some sequences."""
        return np.stack([np.asarray(poses[key[1]]) for poses in self.sequences[key[0]]])
