"""Generate videos: one reference image and a driving motion in, a video of that person moving that way out."""

import argparse
import dataclasses
import json
import logging
from pathlib import Path
from typing import cast

import jax

from mimicmotion_jax.checkpoint import read_config
from mimicmotion_jax.cli.common import log_to_stderr, script_parser
from mimicmotion_jax.cli.compile_only import report_generation
from mimicmotion_jax.cli.demo import WEIGHTS, demo_options, run_demo
from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.job_list import read_jobs
from mimicmotion_jax.inference.jobs import run_jobs
from mimicmotion_jax.inference.options import (
    GenerateConfig,
    OutputOptions,
    PipelineOptions,
    load_options,
    with_options,
)
from mimicmotion_jax.inference.output import (
    check_inputs_stay,
    check_outputs,
    save_pose,
    write_videos,
    written_paths,
)
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.runtime import distributed
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.sharding import describe_mesh

logger = logging.getLogger("mimicmotion_jax.sample")  # a script's own name would not be shown

_LONGEST = 30 * 24 * 3600  # seconds that one of several processes may work longer than another one

EXAMPLES = """examples:
  python sample.py                                   the small model that comes with the code, on its own inputs
  python sample.py --checkpoint checkpoints/mimicmotion --image person.jpg --motion dance.mp4 --output person.mp4
  python sample.py --checkpoint DIR --image person.jpg --motion dance.npz --output person.mp4 align=limb seed=7
  python sample.py --checkpoint DIR --jobs jobs.jsonl --output-dir videos batch_size=4
  python sample.py --pose-only --image person.jpg --motion dance.mp4 --output person.mp4     is the motion any good?
  python sample.py --compile-only --topology v5e:2x4 num_frames=72     does it fit? (the full model, or --checkpoint's)

a motion is a video, a GIF, a folder of pictures, or keypoints (.npz, .json, a folder of *_keypoints.json). OpenPose's
own files do not say how large the video was: add motion_size=[1920,1080], or "motion_size" in a line of jobs.jsonl.
a line of jobs.jsonl: {"image": "person.jpg", "motion": "dance.mp4", "output": "person.mp4", "seed": 7}
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__, EXAMPLES, GenerateConfig, meanings="configs/sample.yaml")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="written by convert_weights.py or train.py")
    parser.add_argument("--image", type=Path, help="the reference picture")
    parser.add_argument("--image-pose", type=Path, metavar="FILE", help="its keypoints, not detected but given")
    parser.add_argument("--motion", type=Path, metavar="PATH", help="driving video or keypoints")
    parser.add_argument("--output", type=Path, metavar="PATH", help=".mp4, .gif, or a folder of numbered PNGs")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with any of the options below")
    parser.add_argument("--jobs", type=Path, metavar="FILE", help="many videos: one JSON object per line")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where the jobs' videos go")
    parser.add_argument("--save-pose", action="store_true", help="also write the drawn skeleton and its keypoints")
    parser.add_argument(
        "--pose-only", action="store_true", help="write just those two: needs no weights, makes no video"
    )
    parser.add_argument("--side-by-side", action="store_true", help="show reference, skeleton and result together")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this software did not write")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="default: bfloat16; on a CPU float32, but not with --compile-only",
    )
    parser.add_argument("--devices", type=int, metavar="N", help="default: all; a CPU counts as one, or as N")
    parser.add_argument("--process-id", type=int, default=None, metavar="I", help="do jobs I, I+N, I+2N, …")
    parser.add_argument("--num-processes", type=int, default=None, metavar="N", help="how many processes share --jobs")
    parser.add_argument("--distributed", action="store_true", help="take those two from the cluster (TPU pod, SLURM)")
    parser.add_argument("--compile-only", action="store_true", help="compile, print what it takes as JSON, and stop")
    parser.add_argument(
        "--topology", metavar="NAME", help="compile for TPUs or GPUs that are not here, e.g. v5e:2x4 or h100:1"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one job, many jobs, or the demonstration; 1 if a job failed."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    overrides = [
        f"{name}=true" for name in ("save_pose", "side_by_side", "overwrite") if getattr(args, name)
    ] + args.options
    nothing_given = not (args.image or args.motion or args.jobs or args.checkpoint)
    _refuse_useless(args, nothing_given)
    if nothing_given and not (args.compile_only or args.pose_only):
        return _run_demo(args, overrides)
    options = load_options(args.checkpoint, args.config, overrides)
    if args.compile_only:
        report = report_generation(options, _model(args), args.dtype or "bfloat16", args.topology)
        print(json.dumps(report, indent=2))
        return 0
    if args.pose_only:
        return _pose_only(args, options)
    if args.checkpoint is None:
        raise InputError("say which weights to use with --checkpoint DIR; mimicmotion convert makes one.")
    return _run_one(args, options) if args.jobs is None else _run_jobs(args, options)


def _run_demo(args: argparse.Namespace, overrides: list[str]) -> int:
    options = demo_options(args.config, overrides)
    logger.info(
        "No --checkpoint was given: this is the small model that comes with the package, which knows drawn people only."
        " mimicmotion sample --help explains how to use real weights."
    )
    run_demo(_load_pipeline(args, options, WEIGHTS), args.output or Path("outputs/demo.mp4"), options)
    return 0


def _run_one(args: argparse.Namespace, options: GenerateConfig) -> int:
    job = _one_job(args)
    _check_files(job, options)
    Preparer(_model(args).size_multiple).check(job.image, job.motion, options, job.image_pose)
    pipeline = _load_pipeline(args, options, args.checkpoint)
    given = values_of(PipelineOptions, options)
    stream = pipeline.stream(job.image, job.motion, image_pose=job.image_pose, **given)
    stream.save(job.output, **values_of(OutputOptions, options))
    logger.info("wrote %s", job.output)
    return 0


def _pose_only(args: argparse.Namespace, options: GenerateConfig) -> int:
    """Detect, report and align as for a video of the checkpoint given, or of the full model."""
    job, options = _one_job(args), dataclasses.replace(options, save_pose=True)
    _check_files(job, options)
    prepared = Preparer(_model(args).size_multiple)(job.image, job.motion, options, job.image_pose)
    save_pose(prepared, job.output)
    logger.info("wrote %s", " and ".join(map(str, written_paths(job.output, save_pose=True)[1:])))
    return 0


def _one_job(args: argparse.Namespace) -> Job:
    for name in ("image", "motion", "output"):
        if getattr(args, name) is None:
            raise InputError(f"--{name} is missing; see mimicmotion sample --help.")
    return Job(args.image, args.motion, args.output, args.image_pose)


def _check_files(job: Job, options: GenerateConfig) -> None:
    check_inputs_stay(job, options)
    check_outputs(job.output, options)


def _model(args: argparse.Namespace) -> ModelConfig:
    return ModelConfig() if args.checkpoint is None else read_config(args.checkpoint)


def _load_pipeline(args: argparse.Namespace, options: GenerateConfig, checkpoint: str | Path) -> MimicMotionPipeline:
    """Load the weights and refuse what cannot work with them, before minutes are spent on detecting poses."""
    enable_compilation_cache()
    split_cpu(args.devices or 1)
    pipeline = MimicMotionPipeline.from_pretrained(checkpoint, args.dtype, num_devices=args.devices, progress=True)
    options.plan(1, pipeline.config.window_size)
    logger.info("generating on %s", describe_mesh(pipeline.mesh))
    return pipeline


def _refuse_useless(args: argparse.Namespace, nothing_given: bool) -> None:
    """A switch that would be ignored is a misunderstanding."""
    if args.topology and not args.compile_only:
        raise InputError("--topology goes with --compile-only: there is nothing to run on.")
    useless: dict[str, str] = {}
    if args.pose_only:
        ignored = ("jobs", "compile_only", "dtype", "devices", "side_by_side")
        useless |= dict.fromkeys(ignored, "with --pose-only, which generates nothing")
    if args.compile_only:
        useless["devices"] = "with --compile-only, which takes all that are here or those of --topology"
    elif args.jobs is None:
        shared = ("output_dir", "process_id", "num_processes", "distributed")
        useless |= dict.fromkeys(shared, "without --jobs")
        if nothing_given:
            useless["image_pose"] = "without --image"
    else:
        useless |= dict.fromkeys(("image", "image_pose", "motion", "output"), "with --jobs, whose lines say that")
        if args.distributed:
            useless |= dict.fromkeys(("process_id", "num_processes"), "with --distributed, which finds it out")
    for name, where in useless.items():
        value = getattr(args, name)
        if value is not None and value is not False:
            raise InputError(f"--{name.replace('_', '-')} has no effect {where}; leave it out.")


def _run_jobs(args: argparse.Namespace, config: GenerateConfig) -> int:
    if args.output_dir is None:
        raise InputError("say where the jobs' videos go with --output-dir DIR.")
    jobs = read_jobs(args.jobs, args.output_dir, config=config)
    if not args.distributed:
        return _run_share(args, config, jobs, args.process_id or 0, args.num_processes)
    # Each makes its videos alone: whoever is through first, or fails, must not end the others' work.
    distributed.initialize(distributed=True, shutdown_timeout=_LONGEST)
    try:
        return _run_share(args, config, jobs, jax.process_index(), jax.process_count())
    finally:
        logger.info("process %d waits until the other processes are through", jax.process_index())


def _run_share(
    args: argparse.Namespace, config: GenerateConfig, jobs: list[Job], process_id: int, num_processes: int | None
) -> int:
    num_processes = 1 if num_processes is None else num_processes
    if num_processes < 1:
        raise InputError(f"--num-processes {num_processes} leaves nobody to do the jobs; give 1 or more.")
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process-id {process_id} must lie between 0 and {num_processes - 1} (--num-processes - 1).")
    pipeline = _load_pipeline(args, config, args.checkpoint)

    def prepare(job: Job) -> Prepared:
        given = dict(job.options)
        given |= {name: value for name in ("seed", "motion_size") if (value := getattr(job, name)) is not None}
        options = with_options(config, given)
        _check_files(job, options)
        inputs = {"image_pose": job.image_pose, **values_of(PipelineOptions, options)}
        return dataclasses.replace(
            pipeline.prepare(job.image, job.motion, **inputs), output=job.output, options=options
        )

    def generate(batch: list[Prepared]) -> None:
        options = cast(GenerateConfig, batch[0].options)
        write_videos(
            batch, [item.output for item in batch if item.output is not None], pipeline.generate(batch), options
        )

    logs = args.output_dir / "failures"
    return 1 if run_jobs(jobs, prepare, generate, config.batch_size, logs, process_id, num_processes) else 0
