"""From files to files: a picture and a motion on disk become a video on disk; what `sample.py` calls."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.inference.outputs import compose, open_output, save_pose
from mimicmotion_jax.pipeline import DTypeName, MimicMotionPipeline, PoseBatch
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu
from mimicmotion_jax.runtime.out_of_memory import report_out_of_memory
from mimicmotion_jax.sharding import describe_mesh, sampling_mesh

logger = logging.getLogger(__name__)

_LESS_MEMORY = "lower batch_size, group_size, decode_chunk_size or resolution, or use more devices"


@report_out_of_memory("use --dtype bfloat16 or a device with more memory")
def load_pipeline(
    checkpoint: Path, config: GenerateConfig, dtype: DTypeName | None = None, num_devices: int | None = None
) -> MimicMotionPipeline:
    """Load the weights and refuse what cannot work with them, before minutes are spent on detecting poses.

    Says on which devices.

    Args:
        checkpoint: written by `convert_weights.py` or `train.py`.
        config: of the generation.
        dtype: as `MimicMotionPipeline.from_pretrained`.
        num_devices: to spread windows over; None takes all, and a CPU for one.

    Raises:
        InputError: no or another kind of checkpoint, too many devices, windows that the checkpoint cannot have, weights
            that a device has no room for.
    """
    enable_compilation_cache()
    split_cpu(num_devices or 1)
    pipeline = MimicMotionPipeline.from_pretrained(checkpoint, dtype, sampling_mesh(num_devices), progress=True)
    config.plan(1, pipeline.config.window_size)
    logger.info("generating on %s", describe_mesh(pipeline.mesh))
    return pipeline


def generate(pipeline: MimicMotionPipeline, batch: Sequence[Prepared], config: GenerateConfig) -> None:
    """Make the videos of a batch of equal shapes and write them; frames are streamed, never held all at once.

    Raises:
        InputError: the device's memory does not suffice, or an output cannot be written.
    """
    height, width = batch[0].image.shape[:2]
    poses = PoseBatch([DrawnPoses(item.keypoints, height, width, config.draw_style) for item in batch])
    images = np.stack([item.image for item in batch])
    with report_out_of_memory(_LESS_MEMORY):
        latents = pipeline.latents(images, poses, config, seeds=[item.seed for item in batch], progress=True)
        # The video comes last: where it is, the job is done.
        if config.save_pose:
            for item, drawn in zip(batch, poses.sequences, strict=True):
                save_pose(item, drawn)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(open_output(item, config)) for item in batch]
            start = 0
            for frames in pipeline.decode(latents, config, progress=True):
                pixels = np.round(frames * 255).astype(np.uint8)
                stop = start + pixels.shape[1]
                # Frame 0 stands for the reference picture and is not part of the video.
                for i, (item, writer) in enumerate(zip(batch, writers, strict=True)):
                    skip = int(start == 0)
                    if stop - start > skip:
                        shown = compose(item, poses.sequences[i], pixels[i, skip:], start + skip, config)
                        writer.write(shown)
                start = stop
    for item in batch:
        logger.info("wrote %s", item.output)
