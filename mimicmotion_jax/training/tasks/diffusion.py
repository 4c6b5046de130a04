"""Training of UNet and PoseNet on clips that the frozen VAE and CLIP encode; what `mimicmotion train` runs."""
# pyright: reportInvalidTypeForm=false
# (jaxlib has no stubs, so jax.Device is a variable to a type checker)

import functools
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.hardware import peak_flops
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.encode import BY_FRAME, encode_pixels, take_encodings
from mimicmotion_jax.training.export import export_lora, export_model
from mimicmotion_jax.training.networks import (
    FROZEN,
    TRAINED,
    check_base,
    check_encodings,
    check_sampling,
    check_shapes,
    check_teacher,
    kept_dtype,
    load_networks,
    model_config,
)
from mimicmotion_jax.training.objective import Encoded
from mimicmotion_jax.training.program import step_flops
from mimicmotion_jax.training.samples import Sampler
from mimicmotion_jax.training.state import Metrics, Params, TrainState
from mimicmotion_jax.training.step import TEACHER, make_train_step
from mimicmotion_jax.training.template import ADAPTER, Template, flat_networks, init_adapters, split_trainable


class Diffusion:
    """The task of `mimicmotion train`; see `trainer.Task` for the methods.

    The constructor opens the data and checks everything that can be wrong with the input; `load` reads weights.

    Args:
        config: of the run.
        progress: show bars.
        devices: to train on; None takes those of all processes.

    Raises:
        InputError: a mistake in the configuration, the data or the checkpoint, or devices that do not suit them.
    """

    memory_advice = (
        "lower batch_size or raise accumulation, spread the run over more devices with mesh.fsdp or a sample with "
        "mesh.frames, and leave remat=true"
    )

    def __init__(self, config: TrainConfig, progress: bool = True, devices: Sequence[jax.Device] | None = None):
        self.config, self.progress = config, progress and jax.process_index() == 0
        self.mesh = sharding.training_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frames, devices)
        self.model = model_config(config)
        check_shapes(config, self.model, self.mesh)
        check_sampling(config, self.model)
        check_teacher(config, self.model)
        _, share, num_shares = sharding.local_rows(self.mesh, config.batch_size)
        self.loader = ClipLoader(
            config.data, config.batch_size, config.seed, share, num_shares, downscale=self.model.vae.downscale
        )
        check_encodings(config)
        check_base(config)
        self.template = Template(self.model, TRAINED, config.lora)
        trained, self._fixed_keys = split_trainable(list(self.template.shapes), config.trainable)
        self.shapes = {key: self.template.shapes[key] for key in trained}
        self.train_step = make_train_step(config, self.template, self.mesh)
        self._sampler = Sampler(config, self.model, self.template) if config.sample_every else None
        self.fixed: Params = {}
        self.encoders: dict[str, Any] = {}

    def identity(self) -> dict[str, Any]:
        """Sizes, trained parameters, and the content of the checkpoints; the seed if networks are drawn from it."""
        config = self.config
        sources = {"checkpoint": config.checkpoint, "encoders": config.encoders, "distillation.teacher": config.teacher}
        hashes = {key: path and checkpoint.manifest_sha256(path) for key, path in sources.items()}
        seed = config.seed if config.checkpoint is None else None
        lora = None if config.lora.rank is None else to_dict(config.lora)
        return {"model": to_dict(self.model), "trainable": sorted(self.shapes), **hashes, "seed": seed, "lora": lora}

    def load(self) -> Params:
        """Load or initialise all networks; returns the parameters to train and keeps the others."""
        config, load = self.config, functools.partial(load_networks, model=self.model, mesh=self.mesh)
        trained = {}
        for name in TRAINED:
            trained |= load(
                (name,), config.checkpoint, seed=config.seed, dtype=kept_dtype(config, name), progress=self.progress
            )
        adapters = {key: shape for key, shape in self.shapes.items() if ADAPTER.search(key)}
        params = flat_networks(trained) | init_adapters(adapters, config.seed)
        self.fixed = {key: params.pop(key) for key in self._fixed_keys}
        if config.distillation is not None:
            teacher = load(TRAINED, config.teacher, seed=config.seed, dtype=config.dtype, progress=self.progress)
            self.fixed |= {TEACHER + key: value for key, value in flat_networks(teacher).items()}
        source = config.checkpoint or config.encoders
        self.encoders = load(FROZEN, source, seed=config.seed, dtype=config.dtype, progress=self.progress)
        return params

    def next_batch(self) -> Encoded:
        """Read the next batch onto the devices and encode it, unless encodings are stored."""
        config = self.config
        batch = sharding.global_batch(self.mesh, config.batch_size, next(self.loader), BY_FRAME)
        if config.data.encodings:
            return take_encodings(batch, self.model.vae.scaling_factor)
        return encode_pixels(**self.encoders, batch=batch, config=config.objective, seed=config.seed, mesh=self.mesh)

    def step(self, state: TrainState, batch: Encoded) -> tuple[TrainState, Metrics]:
        """Start a training step on the devices."""
        return self.train_step(state, self.fixed, batch)

    def sample(self, state: TrainState, step: int) -> None:
        """Write sample videos to OUTPUT/samples."""
        if self._sampler is not None:
            params = state.averaged_params | self.fixed
            self._sampler(step, params, self.encoders, absolute_path(self.config.output) / "samples")

    def export(self, state: TrainState) -> epath.Path:
        """Write OUTPUT/model, or the adapters to OUTPUT/lora; averaged parameters where averages are kept."""
        if self.template.adapted:
            params = state.averaged_params | self.fixed
            return export_lora(self.config, self.model, params, self.template.adapted)
        networks = self.template.networks(state.averaged_params | self.fixed)
        return export_model(self.config, self.model, networks, int(state.step), self.mesh)

    def peak_steps_per_second(self) -> float | None:
        """Steps per second if the devices computed at their peak; None if their peak is unknown."""
        peak = peak_flops(self.mesh.devices.flat[0].device_kind)
        if peak is None:
            return None
        return peak * self.mesh.size / (step_flops(self.config, self.model) * self.config.batch_size)
