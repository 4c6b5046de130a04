"""The programs of generation without pictures or weights: what a compiler makes of them, for any kind of device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.sampler import group_plan
from mimicmotion_jax.inference import stages
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.models.attention import KERNEL_FLOPS
from mimicmotion_jax.models.build import NETWORKS, abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pipeline import lay_out_windows, padded_frames
from mimicmotion_jax.video.image import target_size
from mimicmotion_jax.xla_report.report import compile_report
from mimicmotion_jax.xla_report.topologies import topology_devices


def compile_only(
    config: GenerateConfig, model: ModelConfig, dtype: str = "bfloat16", topology: str | None = None
) -> dict[str, Any]:
    """Compile denoising and decoding of one video and report what each takes, as plain dictionaries for JSON.

    Args:
        config: size, fusion, steps, group and chunk sizes; `max_frames` is the length of the video, by default as many
            as fit one window beside the reference's frame.
        model: sizes of the networks.
        dtype: of parameters and computation.
        topology: devices that need not be there, such as "v5e:2x4" or "h100:1"; None is the local devices.

    Raises:
        InputError: an unknown topology, or options that do not fit each other.
    """
    mesh = sharding.sampling_mesh(devices=None if topology is None else topology_devices(topology))
    # A landscape picture stands for one that is not there yet.
    height, width = target_size(9, 16, config.resolution, config.size or config.aspect, model.size_multiple)
    networks = abstract_networks(model, jnp.dtype(dtype), mesh)
    sizes = {name: sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(net)) for name, net in networks.items()}
    num_frames = config.max_frames or max((config.window_size or model.window_size) - 1, 1)
    denoising, rounds = lower_denoising(config, model, networks, 1 + num_frames, height, width, mesh)
    scale = model.vae.downscale
    chunks = (mesh.size, config.decode_chunk_size, height // scale, width // scale, model.vae.latent_channels)
    apart = jax.ShapeDtypeStruct(chunks, jnp.float32, sharding=sharding.by_window(mesh))
    decoding = stages.decode_chunks.lower(networks["vae"], apart)
    return {
        "topology": topology or mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "frames": num_frames,
        "windows": config.plan(1 + num_frames, model.window_size).num_windows,
        "height": height,
        "width": width,
        "network_bytes": sizes,
        "denoising": _report(denoising, mesh, sizes["vae"] + sizes["image_encoder"], rounds),
        "decoding": _report(decoding, mesh, sum(sizes.values()) - sizes["vae"]),
    }


def _report(lowered: jax.stages.Lowered, mesh: Mesh, resident_bytes: int, unknown_turns: int = 1) -> dict[str, Any]:
    options = {"kernel_flops": KERNEL_FLOPS, "unknown_turns": unknown_turns}
    return compile_report(lowered, mesh, resident_bytes=resident_bytes, **options).to_json()


def lower_denoising(
    config: GenerateConfig,
    model: ModelConfig,
    networks: dict[str, Any],
    num_frames: int,
    height: int,
    width: int,
    mesh: Mesh,
) -> tuple[jax.stages.Lowered, int]:
    """The denoising loop as `pipeline` calls it, for a batch of one; and how many groups of windows a step predicts.

    The latter is an argument of the program, not part of it. `num_frames` counts the reference's.
    """
    unet = networks["unet"]
    plan = config.plan(num_frames, model.window_size)
    window_size, total = plan.indices.shape[1], padded_frames(plan)
    h, w, channels = height // model.vae.downscale, width // model.vae.downscale, model.vae.latent_channels
    windows, group = lay_out_windows(mesh, model, config, plan.num_windows, (1, total, h, w, channels))
    groups = group_plan(plan, group, config.plan(total, model.window_size).num_windows)
    grouped = jax.tree.map(lambda x: _leaf(np.shape(x), np.asarray(x).dtype, windows), groups)
    dtype, guided = unet.conv_in.kernel.dtype, config.guidance_scale > 1
    conditions = jax.eval_shape(
        lambda unet, context, ids: stages.make_conditions(unet, context, ids, window_size, guided),
        unet,
        _leaf((1, model.unet.context_dim), dtype, mesh),
        _leaf((1, 3), jnp.float32, mesh),
    )
    unet, pose_net, conditions = jax.tree.map(
        lambda x: _leaf(x.shape, x.dtype, windows), (unet, networks["pose_net"], conditions)
    )
    lowered = stages.run_denoising.lower(
        unet,
        pose_net,
        _leaf((1, total, h, w, channels), jnp.float32, windows),
        _leaf((config.num_inference_steps + 1,), jnp.float32, windows),
        grouped,
        conditions,
        _leaf((1, h, w, channels), dtype, windows),
        _leaf((1, total, h, w, model.pose_net.stem_channels), dtype, windows),
        _leaf((), jnp.float32, windows),
        guided=guided,
        mesh=windows,
    )
    return lowered, int(groups.num_groups)


def abstract_networks(model: ModelConfig, dtype: jnp.dtype, mesh: Mesh) -> dict[str, Any]:
    """The four networks with shapes in the place of parameters, on every device of `mesh`."""
    networks = {name: abstract_network(name, model) for name in NETWORKS}
    return jax.tree.map(lambda x: _leaf(x.shape, dtype, mesh), networks)


def _leaf(shape: tuple[int, ...], dtype: jnp.dtype, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.replicated(mesh))
