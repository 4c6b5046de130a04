"""Job lists on the command line: `mimicmotion sample --jobs`, alone, shared by several processes, or on Beam."""

import argparse
import contextlib
import functools
import json
import logging
import os
from typing import cast

import jax
from etils import epath

from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.job import Job
from mimicmotion_jax.inference.job_list import read_jobs, to_line
from mimicmotion_jax.inference.job_runner import JobRunner
from mimicmotion_jax.inference.jobs import run_jobs
from mimicmotion_jax.inference.motion import Motion
from mimicmotion_jax.inference.options import GenerateConfig, OutputOptions, PipelineOptions
from mimicmotion_jax.inference.picture import Picture
from mimicmotion_jax.inference.progress import progress_folder, remove_progress
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime import distributed
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.beam import choose_runner, plain_errors
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.sharding import describe_mesh

logger = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT = 30 * 24 * 3600  # seconds that one of several processes may work longer than another one


def load_pipeline(
    args: argparse.Namespace, options: GenerateConfig, checkpoint: os.PathLike[str]
) -> MimicMotionPipeline:
    """Load the weights, and refuse windows that the checkpoint cannot have before minutes are spent on poses."""
    enable_compilation_cache()
    split_cpu(args.devices or 1)
    pipeline = MimicMotionPipeline.from_pretrained(
        checkpoint,
        args.dtype,
        num_devices=args.devices,
        lora=args.lora,
        quantize=args.quantize,
        progress=True,
    )
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
    if args.beam_options is not None:
        return _run_on_beam(args, config, jobs)
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
    with JobRunner(load_pipeline(args, config, args.checkpoint), config) as runner:
        failures = run_jobs(
            jobs,
            runner.prepare,
            runner.generate,
            config.batch_size,
            args.output_dir / "failures",
            process_id,
            num_processes,
        )
    return 1 if failures else 0


def _run_on_beam(args: argparse.Namespace, config: GenerateConfig, jobs: list[Job]) -> int:
    run_beam = choose_runner([option for option in args.beam_options.split(",") if option], "beam")
    import apache_beam as beam
    from apache_beam.io import WriteToText

    from mimicmotion_jax.inference.beam import GenerateVideos, Videos

    lines = [to_line(job, args.output_dir) for job in jobs]
    output_dir = absolute_path(args.output_dir)
    load = functools.partial(load_pipeline, args, config, args.checkpoint)
    failed = output_dir / "failures" / "jobs.jsonl"
    with plain_errors(InputError), beam.Pipeline(run_beam.runner, run_beam.options()) as pipeline:
        generate = GenerateVideos(load, output_dir, config, is_shared=not run_beam.is_local)
        videos = cast(Videos, pipeline | beam.Create(lines) | generate)
        write = WriteToText(os.fspath(failed), num_shards=1, shard_name_template="")
        _ = videos.failures | beam.Map(json.dumps) | write
    num_failed = len(failed.read_text().splitlines())
    if num_failed:
        logger.error("%d of %d jobs failed; %s has them with their reasons", num_failed, len(jobs), failed)
        return 1
    failed.unlink()
    with contextlib.suppress(OSError):  # other files are in it
        failed.parent.rmdir()
    return 0
