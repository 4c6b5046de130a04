"""Generation on Apache Beam: a collection of jobs in, videos in one folder out, failures apart from results.

    with beam.Pipeline(options=PipelineOptions(runner="DataflowRunner", ...)) as pipeline:
        jobs = pipeline | beam.io.ReadFromText("gs://bucket/jobs.jsonl") | beam.Map(json.loads)
        videos = jobs | GenerateVideos(load, "gs://bucket/videos", config, folder="gs://bucket")
        videos.failures | beam.Map(json.dumps) | beam.io.WriteToText("gs://bucket/failures")

Beam's `RunInference` loads the weights, once for all processes of a machine, and its model is `run_jobs`: what happens
to a job is the same as under `mimicmotion sample --jobs`. It never raises for one, so no runner repeats a hopeless job
again and again, and a bundle that is repeated because a machine was lost skips the videos that are finished.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from mimicmotion_jax.inference.job import Job, Prepared, Report
from mimicmotion_jax.inference.job_list import check_job, parse_job
from mimicmotion_jax.inference.job_runner import JobRunner, Pipeline
from mimicmotion_jax.inference.jobs import MAX_WAITING, run_jobs
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.runtime.errors import InputError

try:
    import apache_beam as beam
    from apache_beam.ml.inference.base import ModelHandler, RunInference
except ImportError:
    raise InputError('this needs Apache Beam; run pip install "mimicmotion_jax[beam]".') from None

Line = Mapping[str, Any]
"""Content of a line of a job list: `image`, `motion` and what else `read_jobs` names."""


class Videos(NamedTuple):
    """Outputs of `GenerateVideos`, as dictionaries of JSON values."""

    results: Any
    """A dictionary per video: `job`, `output` (its path), and `report` (text; None where it was finished already)."""
    failures: Any
    """A dictionary per job that failed: `job` as it was given, `reason` (a sentence) and `traceback`."""


class GenerateVideos(beam.PTransform):
    """Make the videos of a bounded collection of jobs.

    Args:
        load: returns the pipeline, for example
            `functools.partial(MimicMotionPipeline.from_pretrained, "gs://bucket/mimicmotion")`; called on workers.
        output_dir: folder of all videos, local or gs://; a job's `output` may not leave it.
        config: options of all jobs; `load_options(checkpoint)` takes the checkpoint's defaults into account.
        folder: folder of relative inputs, local or gs://.
        is_shared: load the weights once for all worker processes of a machine; False: once in each process.
    """

    def __init__(
        self,
        load: Callable[[], Pipeline],
        output_dir: epath.PathLike,
        config: GenerateConfig | None = None,
        folder: epath.PathLike = "",
        is_shared: bool = True,
    ):
        super().__init__()
        self._list = _List(os.fspath(folder), os.fspath(output_dir), config or GenerateConfig())
        self._model = _Model(load, self._list, is_shared)

    def expand(self, input_or_inputs: Any) -> Videos:
        """Check the jobs, bring those that share an output together, and make the others."""
        checked = _split(input_or_inputs | "Check" >> beam.FlatMap(self._list.check), "checked")
        # Jobs are spread over the workers here, as by Reshuffle.
        alone = _split(checked[0] | beam.GroupByKey() | beam.FlatMap(_refuse_shared_output), "alone")
        made = _split(alone[0] | RunInference(self._model), "made")
        failures = (checked[1], alone[1], made[1]) | beam.Flatten()
        return Videos(made[0], failures)


class _List:
    """Jobs, their folders and common options."""

    def __init__(self, folder: str, output_dir: str, config: GenerateConfig):
        self._folder, self._output_dir, self.config = folder, output_dir, config

    def parse(self, line: Line) -> Job:
        return parse_job(line, _path(self._folder), _path(self._output_dir), "the job")

    def check(self, line: Line) -> Iterable[Any]:
        """Yield the place of the job's video and the line, or its failure."""
        try:
            job = self.parse(line)
            place = next(iter(check_job(job, _path(self._output_dir), self.config, "the job")))
        except InputError as error:
            yield _failure(line, str(error))
        else:
            yield str(place), line


class _Model(ModelHandler):
    """Model of `RunInference` that takes lines of a job list and gives a result or a failure for each."""

    def __init__(self, load: Callable[[], Pipeline], jobs: _List, is_shared: bool):
        self._load, self._jobs, self._is_shared = load, jobs, is_shared

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Number of lines per call: as many as `run_jobs` looks at to put jobs of equal shape together."""
        num_lines = self._jobs.config.batch_size + MAX_WAITING
        return {"min_batch_size": num_lines, "max_batch_size": num_lines}

    def share_model_across_processes(self) -> bool:
        """Return True if one process of a machine holds the weights for all."""
        return self._is_shared

    def load_model(self) -> "_Generator":
        """Load the weights."""
        return _Generator(self._load(), self._jobs)

    def run_inference(
        self, batch: Sequence[Line], model: "_Generator", inference_args: dict[str, Any] | None = None
    ) -> Iterable[dict[str, Any]]:
        """Make the videos of some jobs."""
        return model.run(batch)


class _Generator:
    """Weights on the devices, used by one call at a time."""

    def __init__(self, pipeline: Pipeline, jobs: _List):
        self._pipeline, self._jobs, self._lock = pipeline, jobs, threading.Lock()

    def run(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Make the videos of some jobs; return a result or a failure for each."""
        config, jobs = self._jobs.config, [self._jobs.parse(line) for line in lines]
        reports: dict[Any, Report] = {}
        with self._lock, JobRunner(self._pipeline, config) as runner:

            def prepare(job: Job) -> Prepared:
                prepared = runner.prepare(job)
                reports[job.output] = prepared.report
                return prepared

            failed = run_jobs(jobs, prepare, runner.generate, config.batch_size, log_directory=None)
        failures = {failure.job.output: failure for failure in failed}
        return [
            _failure(line, failures[job.output].reason, failures[job.output].traceback)
            if job.output in failures
            else _result(line, job, reports.get(job.output))
            for line, job in zip(lines, jobs, strict=True)
        ]


def _refuse_shared_output(group: tuple[str, Iterable[Line]]) -> Iterable[Any]:
    place, lines = group[0], list(group[1])
    if len(lines) == 1:
        return lines
    return [_failure(line, f'{len(lines)} jobs write {place}; give each an "output".') for line in lines]


def _result(line: Line, job: Job, report: Report | None) -> dict[str, Any]:
    return {"job": line, "output": os.fspath(job.output), "report": None if report is None else str(report)}


def _failure(line: Any, reason: str, traceback: str = "") -> dict[str, Any]:
    return {"job": line, "reason": reason, "traceback": traceback}


class _IsFailure(beam.PartitionFn):
    """Separates failures from everything else."""

    def partition_for(self, element: Any, num_partitions: int, *args: Any, **kwargs: Any) -> int:
        return int(isinstance(element, dict) and "reason" in element)


def _split(outcomes: Any, name: str) -> Any:
    return outcomes | name >> beam.Partition(_IsFailure(), 2)


def _path(text: str) -> Path | epath.Path:
    return epath.Path(text) if "://" in text else Path(text)
