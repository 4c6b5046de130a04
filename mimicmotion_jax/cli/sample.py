"""Generate videos: one reference image and a driving motion in, a video of that person moving that way out."""

import argparse
import json
import logging
from pathlib import Path

from mimicmotion_jax.checkpoint import is_packaged, read_config, resolve
from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.cli.compile_only import report_generation
from mimicmotion_jax.cli.demo import WEIGHTS, demo_options, run_demo
from mimicmotion_jax.cli.job_lists import load_pipeline, run_job_list, write_video
from mimicmotion_jax.convert.lora import parse_lora
from mimicmotion_jax.inference.job import Job
from mimicmotion_jax.inference.options import (
    PRESETS,
    GenerateConfig,
    load_options,
)
from mimicmotion_jax.inference.output import check_files, save_pose, written_paths
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.atomic_files import exclusive
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.encode import output_target

logger = logging.getLogger("mimicmotion_jax.sample")  # a script's own name would not be shown

_LONGEST = 30 * 24 * 3600  # seconds that one of several processes may work longer than another one

EXAMPLES = """examples:
  mimicmotion sample                              the small model that comes with the package, on inputs of its own
  mimicmotion sample --checkpoint small-student   its distilled student: four calls of the UNet instead of twelve
  mimicmotion sample --checkpoint checkpoints/mimicmotion --image person.jpg --motion dance.mp4 --output person.mp4
  mimicmotion sample --checkpoint DIR --image person.jpg --motion dance.npz --output person.mp4 align=limb seed=7
  mimicmotion sample --checkpoint DIR --lora outputs/train_lora/lora:0.8 --image person.jpg --motion dance.mp4 \\
      --output person.mp4
  mimicmotion sample --checkpoint DIR --jobs jobs.jsonl --output-dir videos batch_size=4
  mimicmotion sample --checkpoint gs://bucket/model --jobs gs://bucket/jobs.jsonl --output-dir gs://bucket/videos \\
      --beam-options runner=DataflowRunner,project=my-project,region=us-central1,temp_location=gs://bucket/tmp
  mimicmotion sample --pose-only --image person.jpg --motion dance.mp4 --output person.mp4    write the skeleton alone
  mimicmotion sample --compile-only --topology v5e:2x4 num_frames=72                          check the memory first

`mimicmotion check` shows beforehand what the model will be given. `python sample.py` does the same as this command.
A motion is a video, an animation, a folder of pictures, or keypoints (.npz, .json,
.npy, .pkl, a folder of .json; of this software, OpenPose, DWPose, MMPose or MediaPipe). Most of these do not say how
large the video was: add motion_size=[1920,1080].

A line of jobs.jsonl: {"image": "person.jpg", "motion": "dance.mp4", "output": "person.mp4", "seed": 7}. The official
release's YAML (test_case: ...) is a job list too.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__, EXAMPLES, GenerateConfig, meanings="configs/sample.yaml")
    add = parser.add_argument
    checkpoint = "converted or trained weights: a folder, gs:// or hub id; or small, small-student"
    add("--checkpoint", type=path_or_url, metavar="DIR", help=checkpoint)
    lora = "LoRA to merge into the weights: a file, a folder, gs:// or hub id; may be given several times"
    add("--lora", action="append", default=[], metavar="FILE[:strength]", help=lora)
    add("--image", type=path_or_url, help="reference image")
    add(
        "--image-pose",
        type=path_or_url,
        metavar="FILE",
        help="keypoints of the person in it, instead of detecting them",
    )
    add("--motion", type=path_or_url, metavar="PATH", help="driving video or keypoints")
    add("--output", type=path_or_url, metavar="PATH", help=".mp4, .gif, or a folder of numbered PNGs; local or gs://")
    add("--config", type=path_or_url, metavar="FILE", help="YAML with any of the options below")
    presets = "steps, noise levels and guidance together; options that you give win (docs/faster.md)"
    add("--preset", choices=tuple(PRESETS), help=presets)
    add("--jobs", type=path_or_url, metavar="FILE", help="list of videos to make: a JSON object per line")
    add("--output-dir", type=path_or_url, metavar="DIR", help="folder of the jobs' videos; local or gs://")
    add("--save-pose", action="store_true", help="also write the drawn skeleton and its keypoints")
    add(
        "--pose-only",
        action="store_true",
        help="write only these two; needs no weights (mimicmotion check shows more)",
    )
    add("--side-by-side", action="store_true", help="show reference, skeleton and result together")
    resume = "go on where a killed run of this command stopped; on by default"
    add("--resume", action=argparse.BooleanOptionalAction, help=resume)
    add("--overwrite", action="store_true", help="replace files that mimicmotion did not write")
    dtypes = "default: bfloat16; on a CPU float32, but bfloat16 with --compile-only"
    add("--dtype", choices=("float32", "bfloat16"), help=dtypes)
    int8 = "keep the weights of the UNet and the image encoder in int8: half the memory, nearly the same video"
    add("--quantize", choices=("int8",), help=int8)
    add("--devices", type=int, metavar="N", help="number of devices; default: all, and one on a CPU")
    add("--process-id", type=int, metavar="I", help="do jobs I, I+N, I+2N, … of the list")
    add("--num-processes", type=int, metavar="N", help="number of processes that share the list")
    add("--distributed", action="store_true", help="detect process id and count from the cluster (TPU pod, SLURM)")
    add(
        "--beam-options",
        metavar="key=value,…",
        help="run the list on Apache Beam; runner=DataflowRunner, FlinkRunner, …",
    )
    add("--compile-only", action="store_true", help="compile, print memory and FLOPs as JSON, and stop")
    add("--topology", metavar="NAME", help="devices to compile for that need not be here, e.g. v5e:2x4 or h100:1")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one job, many jobs, or the demonstration; 1 if a job failed."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    if args.checkpoint is not None:
        args.checkpoint = resolve(args.checkpoint)
    overrides = [
        f"{name}=true" for name in ("save_pose", "side_by_side", "overwrite") if getattr(args, name)
    ] + args.options
    if args.preset is not None:
        overrides.append(f"preset={args.preset}")
    if args.resume is not None:
        overrides.append(f"resume={args.resume}".lower())
    if args.pose_only:
        overrides.append("save_pose=true")
    its_own_inputs = not (args.image or args.motion or args.jobs) and (
        args.checkpoint is None or is_packaged(args.checkpoint)
    )
    for lora in args.lora:
        parse_lora(lora)
    _refuse_unused(args, its_own_inputs)
    if its_own_inputs and not (args.compile_only or args.pose_only):
        args.output = args.output or Path("outputs/demo.mp4")
        with exclusive(output_target(args.output)):
            return _run_demo(args, overrides)
    options = load_options(args.checkpoint, args.config, overrides)
    if args.compile_only:
        report = report_generation(options, _model(args), args.dtype or "bfloat16", args.topology, args.quantize)
        print(json.dumps(report, indent=2))
        return 0
    if args.checkpoint is None and not args.pose_only:
        raise InputError("say which weights to use with --checkpoint DIR; mimicmotion convert makes one.")
    if args.jobs is not None:
        return run_job_list(args, options)
    job = _one_job(args)
    with exclusive(output_target(job.output)):
        check_files(job, options)
        return _pose_only(args, job, options) if args.pose_only else _run_one(args, job, options)


def _run_demo(args: argparse.Namespace, overrides: list[str]) -> int:
    checkpoint = args.checkpoint or WEIGHTS
    options = demo_options(checkpoint, args.config, overrides)
    if args.checkpoint is None:
        logger.info(
            "No --checkpoint was given: this is the small model that comes with the package, which knows drawn people "
            "only. mimicmotion sample --help explains how to use real weights."
        )
    run_demo(load_pipeline(args, options, checkpoint), args.output, options)
    return 0


def _run_one(args: argparse.Namespace, job: Job, options: GenerateConfig) -> int:
    Preparer(_model(args).size_multiple).check(job.image, job.motion, options, job.image_pose)
    pipeline = load_pipeline(args, options, args.checkpoint)
    write_video(pipeline, job.output, options, job.image, job.motion, job.image_pose)
    return 0


def _pose_only(args: argparse.Namespace, job: Job, options: GenerateConfig) -> int:
    """Detect, report and align as for a video of the checkpoint given, or of the full model."""
    prepared = Preparer(_model(args).size_multiple)(job.image, job.motion, options, job.image_pose)
    save_pose(prepared, job.output)
    logger.info("wrote %s", " and ".join(map(str, written_paths(job.output, save_pose=True)[1:])))
    return 0


def _one_job(args: argparse.Namespace) -> Job:
    for name in ("image", "motion", "output"):
        if getattr(args, name) is None:
            raise InputError(f"--{name} is missing; see mimicmotion sample --help.")
    return Job(args.image, args.motion, args.output, args.image_pose)


def _model(args: argparse.Namespace) -> ModelConfig:
    return ModelConfig() if args.checkpoint is None else read_config(args.checkpoint)


def _refuse_unused(args: argparse.Namespace, its_own_inputs: bool) -> None:
    """Refuse switches that would be ignored: they are misunderstandings."""
    if args.topology and not args.compile_only:
        raise InputError("--topology goes with --compile-only: there is nothing to run on.")
    unused: dict[str, str] = {}
    if args.pose_only:
        ignored = ("jobs", "compile_only", "dtype", "devices", "side_by_side", "lora", "quantize")
        unused |= dict.fromkeys(ignored, "with --pose-only, which generates nothing")
    if args.compile_only:
        unused["devices"] = "with --compile-only, which takes all that are here or those of --topology"
        unused["lora"] = "with --compile-only, as merged weights take the same programs"
    elif args.jobs is None:
        shared = ("output_dir", "process_id", "num_processes", "distributed", "beam_options")
        unused |= dict.fromkeys(shared, "without --jobs")
        if its_own_inputs:
            unused["image_pose"] = "without --image"
    else:
        unused |= dict.fromkeys(("image", "image_pose", "motion", "output"), "with --jobs, whose lines say that")
        if args.beam_options is not None:
            sharing = ("process_id", "num_processes", "distributed")
            unused |= dict.fromkeys(sharing, "with --beam-options, whose runner shares the jobs out")
        if args.distributed:
            unused |= dict.fromkeys(("process_id", "num_processes"), "with --distributed, which finds it out")
    for name, where in unused.items():
        value = getattr(args, name)
        if value is not None and value is not False and value != []:  # 0 is a value
            raise InputError(f"--{name.replace('_', '-')} has no effect {where}; leave it out.")
