"""Random files through every parser of ours: the result or an `InputError`, no other exception."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mimicmotion_jax import checkpoint
from mimicmotion_jax.config import load_config
from mimicmotion_jax.inference.job_list import read_jobs
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.video.provenance import is_ours, read_provenance

fuzzed = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from([2**31, 2**64, 10**400, 1e308, -0.0, float("inf"), float("nan"), 0.5, 640.0]),
    st.text(max_size=6),
)
POINTS = st.builds(
    lambda points, columns, rows, fill: (
        [[fill] * columns for _ in range(points)] if rows else [fill] * (points * columns)
    ),
    st.sampled_from([0, 1, 17, 18, 21, 33, 68, 133]),
    st.integers(1, 4),
    st.booleans(),
    st.one_of(st.sampled_from([0, -1, 0.5, 1, 100, 1e6, None, float("nan")]), SCALARS),
)


def objects(keys: list[str], leaves: st.SearchStrategy) -> st.SearchStrategy:
    """JSON whose keys are mostly those that a parser looks for."""
    names = st.one_of(st.sampled_from(keys), st.sampled_from(keys), st.text(max_size=4))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, min_size=1, max_size=4)),
        max_leaves=8,
    )


KEYPOINT_KEYS = [
    *("people", "pose_keypoints_2d", "hand_left_keypoints_2d", "face_keypoints_2d", "canvas_width", "canvas_height"),
    *("frames", "bodies", "candidate", "subset", "score", "hands", "hands_score", "faces", "instances", "keypoints"),
    *("keypoint_scores", "scores", "instance_info", "annotations", "images", "id", "image_id", "pose_landmarks"),
    *(
        "left_hand_landmarks",
        "face_landmarks",
        "landmark",
        "x",
        "y",
        "visibility",
        "width",
        "height",
        "fps",
        "frame_id",
    ),
]
KEYPOINT_CONTENT = objects(KEYPOINT_KEYS, st.one_of(SCALARS, POINTS))


def only_input_errors(parse, *arguments, **options):
    try:
        return parse(*arguments, **options)
    except InputError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return None


@pytest.mark.filterwarnings("error")
@fuzzed
@given(content=KEYPOINT_CONTENT, sized=st.booleans())
def test_keypoint_json(tmp_path, content, sized):
    (tmp_path / "k.json").write_text(json.dumps(content))
    only_input_errors(load_keypoints, tmp_path / "k.json", **({"width": 640, "height": 480} if sized else {}))


@pytest.mark.filterwarnings("error")
@fuzzed
@given(content=KEYPOINT_CONTENT, sized=st.booleans())
def test_keypoint_pickles(tmp_path, content, sized):
    (tmp_path / "k.pkl").write_bytes(pickle.dumps(content))
    only_input_errors(load_keypoints, tmp_path / "k.pkl", **({"width": 640, "height": 480} if sized else {}))


def whole_files() -> dict[str, bytes]:
    body, npz, npy = {"body": np.zeros((2, 18, 2)), "body_score": np.ones((2, 18))}, io.BytesIO(), io.BytesIO()
    np.savez(npz, **body, width=64, height=48, fps=25, comment="{}")
    np.save(npy, np.zeros((2, 133, 3), np.float32))
    frame = {"bodies": {"candidate": np.zeros((18, 2)), "subset": np.arange(18.0)[None]}, "hands": [], "faces": []}
    people = {"people": [{"pose_keypoints_2d": [1, 2, 0.5] * 18}], "canvas_width": 64, "canvas_height": 48}
    contents = {"npz": npz.getvalue(), "npy": npy.getvalue(), "json": json.dumps([people] * 2).encode()}
    return contents | {"pkl": pickle.dumps([frame] * 2)}


@fuzzed
@given(
    suffix=st.sampled_from(["npz", "npy", "json", "pkl"]),
    places=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
    kept=st.sampled_from([1.0, 1.0, 0.9, 0.4]),
)
def test_damaged_keypoint_files(tmp_path, suffix, places, kept):
    content = bytearray(whole_files()[suffix])
    for place, replacement in places:
        start = int(place * (len(content) - 1))
        content[start : start + len(replacement)] = replacement
    path = tmp_path / f"k.{suffix}"
    path.write_bytes(content[: round(kept * len(content))])
    only_input_errors(load_keypoints, path, 64, 48)


OPTION_KEYS = ["image", "motion", "output", "seed", "image_pose", "motion_size", "options", "width", "align", "stride"]
PATHS = st.sampled_from(["a.png", "b.mp4", "../c.mp4", "", ".", "gs://x", "d\0", "e" * 300, "\ud800"])


@fuzzed
@given(
    lines=st.lists(
        st.one_of(
            objects(OPTION_KEYS, st.one_of(SCALARS, PATHS)).map(json.dumps),
            st.fixed_dictionaries({"image": PATHS, "motion": PATHS}, optional={"seed": SCALARS, "output": PATHS}).map(
                json.dumps
            ),
            st.text(max_size=20),
        ),
        max_size=4,
    )
)
def test_job_lists(tmp_path, lines):
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines), encoding="utf-8", errors="replace")
    only_input_errors(read_jobs, tmp_path / "jobs.jsonl", tmp_path / "out")


OFFICIAL_KEYS = ["test_case", "ref_video_path", "ref_image_path", "num_frames", "seed", "fps", "base_model_path"]


@fuzzed
@given(content=objects(OFFICIAL_KEYS, st.one_of(SCALARS.filter(lambda x: x != 10**400), PATHS)))
def test_official_job_lists(tmp_path, content):
    try:
        text = yaml.safe_dump(content, allow_unicode=True)
    except yaml.YAMLError:
        return
    (tmp_path / "jobs.yaml").write_text(text, encoding="utf-8", errors="replace")
    only_input_errors(read_jobs, tmp_path / "jobs.yaml", tmp_path / "out")


@fuzzed
@given(
    text=st.one_of(
        st.text(alphabet="ab:-[]{}&*<!|>\n '\"#%0", max_size=40),
        objects(["seed", "model", "unet", "data", "steps", "sampling", "trainable"], SCALARS).map(json.dumps),
    ),
    overrides=st.lists(st.text(alphabet="abseed.model=[]{}&*!<:01-,", max_size=12), max_size=2),
)
def test_configurations(tmp_path, text, overrides):
    (tmp_path / "c.yaml").write_text(text)
    for cls in (TrainConfig, GenerateConfig):
        only_input_errors(load_config, cls, tmp_path / "c.yaml", overrides)


MANIFEST_KEYS = ["format", "window_size", "networks", "sources", "unet", "vae", "shape", "dtype", "groups", "name"]


@fuzzed
@given(
    contents=st.lists(
        st.one_of(objects(MANIFEST_KEYS, SCALARS).map(json.dumps), st.text(max_size=10), st.just("[" * 20_000)),
        min_size=4,
        max_size=4,
    )
)
def test_checkpoints(tmp_path, contents):
    (tmp_path / "params").mkdir(exist_ok=True)
    for name, content in zip(("manifest", "config", "sampling", "params/index"), contents, strict=True):
        (tmp_path / f"{name}.json").write_text(content, encoding="utf-8", errors="replace")
    for read in (checkpoint.read_manifest, checkpoint.read_config, checkpoint.read_sampling, checkpoint.stored_groups):
        arguments = () if read is not checkpoint.stored_groups else ("unet", {})
        only_input_errors(read, tmp_path, *arguments)


@fuzzed
@given(
    comment=st.one_of(
        objects(["software", "seed", "description"], SCALARS).map(json.dumps),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        st.just("[" * 20_000),
    )
)
def test_provenance_comments(tmp_path, comment):
    info = PngInfo()
    info.add_itxt("Comment", comment.replace("\0", ""))
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", pnginfo=info)
    np.savez(tmp_path / "a.npz", comment=comment)
    for name in ("a.png", "a.npz"):
        assert isinstance(read_provenance(tmp_path / name), dict)
        only_input_errors(is_ours, tmp_path / name)


def test_an_enormous_comment_is_not_expanded(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("comment.npy", bytes(2**25))
    assert read_provenance(tmp_path / "a.npz") == {}


BOMBS = {
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)),
    "merges": "a: &a {x: 1, y: 2}\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join(['*' + chr(97 + n)] * 10)}]}}\n" for n in range(9)),
    "itself": "a: &a [*a]\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_nested_aliases_are_counted_and_refused(tmp_path, bomb):
    (tmp_path / "c.yaml").write_text(BOMBS[bomb])
    with pytest.raises(InputError, match=r"c\.yaml expands to more than 200,000 items"):
        load_config(TrainConfig, tmp_path / "c.yaml")
    only_input_errors(load_config, TrainConfig, overrides=["seed={" + BOMBS[bomb].strip().replace("\n", ", ") + "}"])


def test_ordinary_aliases_are_read_and_long_files_are_not(tmp_path):
    (tmp_path / "c.yaml").write_text("output: &name here\nencoders: *name\n")
    assert load_config(TrainConfig, tmp_path / "c.yaml").encoders == "here"
    (tmp_path / "c.yaml").write_text("a: 1\n" * 300_000)
    with pytest.raises(InputError, match="too long"):
        load_config(TrainConfig, tmp_path / "c.yaml")
