"""Job lists on the command line: `mimicmotion sample --jobs`, alone or shared by several processes."""

import argparse
import dataclasses
import logging
import os
from typing import cast

import jax
from etils import epath

from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.job_list import read_jobs
from mimicmotion_jax.inference.jobs import run_jobs
from mimicmotion_jax.inference.motion import Motion
from mimicmotion_jax.inference.options import GenerateConfig, OutputOptions, PipelineOptions, with_options
from mimicmotion_jax.inference.output import check_inputs_stay, check_outputs, write_videos
from mimicmotion_jax.inference.picture import Picture
from mimicmotion_jax.inference.progress import progress_folder, remove_progress
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime import distributed
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.sharding import describe_mesh

logger = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT = 30 * 24 * 3600  # seconds that one of several processes may work longer than another one


def check_files(job: Job, options: GenerateConfig) -> None:
    """Refuse outputs that cannot be written, or that would replace an input."""
    check_inputs_stay(job, options)
    check_outputs(job.output, options)


def load_pipeline(
    args: argparse.Namespace, options: GenerateConfig, checkpoint: os.PathLike[str]
) -> MimicMotionPipeline:
    """Load the weights, and refuse windows that the checkpoint cannot have before minutes are spent on poses."""
    enable_compilation_cache()
    split_cpu(args.devices or 1)
    pipeline = MimicMotionPipeline.from_pretrained(checkpoint, args.dtype, num_devices=args.devices, progress=True)
    options.plan(1, pipeline.config.window_size)
    logger.info("generating on %s", describe_mesh(pipeline.mesh))
    return pipeline


def write_video(
    pipeline: MimicMotionPipeline,
    output: epath.PathLike,
    options: GenerateConfig,
    image: Picture,
    motion: Motion,
    image_pose: os.PathLike[str] | Keypoints | None,
) -> None:
    """Generate one video and write it, from where a killed run stopped."""
    given, folder = values_of(PipelineOptions, options), progress_folder(output)
    saving = {"resume_dir": folder if options.resume else None, "save_seconds": options.save_seconds}
    stream = pipeline.stream(image, motion, image_pose=image_pose, **given, **saving)
    stream.save(output, **values_of(OutputOptions, options))
    remove_progress(folder)
    logger.info("wrote %s", output)


def run_job_list(args: argparse.Namespace, config: GenerateConfig) -> int:
    """Make the videos of a job list, or this process's share of them; 1 if a job failed."""
    if args.output_dir is None:
        raise InputError("say where the jobs' videos go with --output-dir DIR.")
    jobs = read_jobs(args.jobs, args.output_dir, config=config)
    if not args.distributed:
        return _run_share(args, config, jobs, args.process_id or 0, args.num_processes)
    # Each makes its videos alone: whoever is through first, or fails, must not end the others' work.
    distributed.initialize(distributed=True, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    try:
        return _run_share(args, config, jobs, jax.process_index(), jax.process_count())
    finally:
        logger.info("process %d waits until the other processes are through", jax.process_index())


def _run_share(
    args: argparse.Namespace, config: GenerateConfig, jobs: list[Job], process_id: int, num_processes: int | None
) -> int:
    num_processes = 1 if num_processes is None else num_processes
    if num_processes < 1:
        raise InputError(f"--num-processes must be at least 1, not {num_processes}.")
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process-id {process_id} must lie between 0 and {num_processes - 1} (--num-processes - 1).")
    pipeline = load_pipeline(args, config, args.checkpoint)

    def prepare(job: Job) -> Prepared:
        given = dict(job.options)
        given |= {name: value for name in ("seed", "motion_size") if (value := getattr(job, name)) is not None}
        options = with_options(config, given)
        check_files(job, options)
        inputs = {"image_pose": job.image_pose, **values_of(PipelineOptions, options)}
        return dataclasses.replace(
            pipeline.prepare(job.image, job.motion, **inputs), output=job.output, options=options
        )

    def generate(batch: list[Prepared]) -> None:
        options = cast(GenerateConfig, batch[0].options)
        outputs = [item.output for item in batch if item.output is not None]
        folders = [progress_folder(output) for output in outputs]
        saved = pipeline.open_progress(batch, folders, options.save_seconds) if options.resume else None
        write_videos(batch, outputs, pipeline.generate(batch, saved=saved), options)
        for folder in folders:
            remove_progress(folder)

    logs = args.output_dir / "failures"
    return 1 if run_jobs(jobs, prepare, generate, config.batch_size, logs, process_id, num_processes) else 0
