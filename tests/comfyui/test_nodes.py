"""ComfyUI nodes against the conventions of ComfyUI, and its workflow against the pipeline's own call."""

import inspect
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, nodes
from mimicmotion_jax import InputError, Keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.provenance import read_provenance

WORKFLOW = Path(nodes.__file__).parent / "workflow.json"
SIZE, FRAMES, FPS = 64, 3, 12.5
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN"}  # a list of choices is one too
CORE = {
    "LoadImage": ([], ["IMAGE", "MASK"]),
    "LoadVideo": ([], ["VIDEO"]),
    "GetVideoComponents": (["VIDEO"], ["IMAGE", "AUDIO", "FLOAT"]),
    "PreviewImage": (["IMAGE"], []),
}
"""Types of the sockets of ComfyUI's own nodes (nodes.py, comfy_extras/nodes_video.py)."""


def inputs_of(node) -> dict[str, tuple]:
    """Types of a node's inputs with their options, in the order in which ComfyUI shows them."""
    declared = node.INPUT_TYPES()
    pairs = [*declared["required"].items(), *declared.get("optional", {}).items()]
    return {name: (kind, options[0] if options else {}) for name, (kind, *options) in pairs}


def is_widget(kind, options) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_nodes_follow_the_conventions(name):
    node = NODE_CLASS_MAPPINGS[name]
    assert NODE_DISPLAY_NAME_MAPPINGS.keys() == NODE_CLASS_MAPPINGS.keys()
    assert isinstance(node.CATEGORY, str)
    assert isinstance(node.DESCRIPTION, str)
    assert set(node.INPUT_TYPES()) <= {"required", "optional", "hidden"}
    assert isinstance(node.RETURN_TYPES, tuple)
    assert len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)) == len(node.RETURN_TYPES)
    assert getattr(node, "OUTPUT_NODE", False) == (not node.RETURN_TYPES)
    optional = node.INPUT_TYPES().get("optional", {})
    # Every input is an argument of that name; an optional one has a default.
    function = inspect.signature(getattr(node(), node.FUNCTION))
    values = {name: None for name in inputs_of(node) if name not in optional}
    assert not set(values) - set(function.bind(**values).arguments) - set(function.bind(**values).kwargs)
    for kind, options in inputs_of(node).values():
        if isinstance(kind, list):
            assert options.get("default", kind[0]) in kind
        elif is_widget(kind, options) and kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"]


class Executor:
    """Runs a workflow in ComfyUI's UI format; `core` are the results of its own nodes."""

    def __init__(self, workflow: dict, core: dict[str, tuple]):
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.links = {link[0]: link[1:] for link in workflow["links"]}
        self.core, self.results = core, {}

    def run(self, node_id: int):
        if node_id not in self.results:
            node = self.nodes[node_id]
            linked = {socket["name"]: self.follow(socket["link"]) for socket in node["inputs"] if socket["link"]}
            if node["type"] in CORE:
                self.results[node_id] = self.core[node["type"]]
            else:
                instance = NODE_CLASS_MAPPINGS[node["type"]]()
                self.results[node_id] = getattr(instance, instance.FUNCTION)(**widget_values(node), **linked)
        return self.results[node_id]

    def follow(self, link: int):
        source, slot, *_ = self.links[link]
        return self.run(source)[slot]

    def named(self, kind: str) -> int:
        (found,) = [number for number, node in self.nodes.items() if node["type"] == kind]
        return found


def widget_values(node: dict) -> dict:
    """Values of a node's widgets by name; a seed has another one behind it, that says whether to draw a new one."""
    left, values = list(node["widgets_values"]), {}
    for name, (kind, options) in inputs_of(NODE_CLASS_MAPPINGS[node["type"]]).items():
        if is_widget(kind, options):
            values[name] = left.pop(0)
            if options.get("control_after_generate"):
                assert left.pop(0) in ("fixed", "increment", "decrement", "randomize")
            assert not isinstance(kind, list) or values[name] in kind
    assert not left
    return values


def test_links_of_the_workflow_join_equal_types():
    workflow = json.loads(WORKFLOW.read_text())
    found = {node["id"]: node for node in workflow["nodes"]}
    assert (max(found), len(workflow["links"])) == (workflow["last_node_id"], workflow["last_link_id"])
    for number, source, slot, target, place, kind in workflow["links"]:
        output, socket = found[source]["outputs"][slot], found[target]["inputs"][place]
        assert output["type"] == socket["type"] == kind
        assert number in output["links"]
        assert socket["link"] == number
    for node in found.values():
        inputs = [socket["type"] for socket in node["inputs"]]
        outputs = [socket["type"] for socket in node["outputs"]]
        if node["type"] in CORE:
            assert (inputs, outputs) == CORE[node["type"]]
            continue
        declared = {name: kind for name, (kind, o) in inputs_of(NODE_CLASS_MAPPINGS[node["type"]]).items()}
        assert all(declared[socket["name"]] == socket["type"] for socket in node["inputs"])
        assert tuple(outputs) == NODE_CLASS_MAPPINGS[node["type"]].RETURN_TYPES
        required = NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()["required"]
        linked = {socket["name"] for socket in node["inputs"] if socket["link"]}
        assert set(required) <= linked | set(widget_values(node))


class Detector:
    """A detector that knows where everybody is: in the pictures of the motion, and in the one of the reference."""

    def __init__(self, people: list[tuple[np.ndarray, np.ndarray]]):
        self.people = people

    def track(self, frames):
        frames = list(frames)
        return iter(self.people if len(frames) == FRAMES else self.people[:1])


@pytest.fixture
def people() -> list[tuple[np.ndarray, np.ndarray]]:
    """COCO-WholeBody points of a dancer, in pixels, and their confidences: body, and a bit of a hand."""
    motion = demo_motion(FRAMES, FPS, SIZE, SIZE)
    coco = [0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]  # of OpenPose's points but for the neck
    ours = [0, *range(2, 18)]
    points, scores = np.zeros((FRAMES, 1, 133, 2)), np.zeros((FRAMES, 1, 133))
    points[:, 0, coco], scores[:, 0, coco] = motion.body[:, 0, ours] * SIZE, motion.body_score[:, 0, ours]
    points[:, 0, 91:112], scores[:, 0, 91:112] = motion.hands[:, 0, 0] * SIZE, 0.9
    return list(zip(points, scores, strict=True))


@pytest.fixture
def comfy(monkeypatch, tmp_path) -> types.SimpleNamespace:
    """Stand-ins for the three modules of ComfyUI that nodes import; `steps` records its progress bar."""
    seen = types.SimpleNamespace(steps=[], is_interrupted=False)

    class InterruptProcessingException(Exception):
        pass

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            seen.steps.append((value, self.total))

    def check():
        if seen.is_interrupted:
            raise InterruptProcessingException

    def module(name, **content):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content))

    module("comfy")
    module("comfy.utils", ProgressBar=ProgressBar)
    module("comfy.model_management", throw_exception_if_processing_interrupted=check)

    def place(prefix, folder, width, height):
        return folder, prefix, 1, "", prefix

    module("folder_paths", get_output_directory=lambda: str(tmp_path), get_save_image_path=place)
    seen.interruption = InterruptProcessingException
    return seen


@pytest.fixture
def executor(tiny_pipeline, people, monkeypatch) -> Executor:
    """The workflow for the small model, two steps, and inputs of this test."""
    workflow = json.loads(WORKFLOW.read_text())
    changes = {
        "MimicMotionAlign": {"resolution": SIZE, "aspect": "square"},
        "MimicMotionGenerate": {"num_inference_steps": 2, "seed": 2**63 + 7},
        "MimicMotionDecode": {"decode_chunk_size": 2},
        "MimicMotionSaveVideo": {"filename_prefix": "video"},
    }
    for node in workflow["nodes"]:
        names = [] if node["type"] in CORE else list(widget_values(node))
        if "seed" in names:
            names.insert(names.index("seed") + 1, "")
        for name, value in changes.get(node["type"], {}).items():
            node["widgets_values"][names.index(name)] = value
    monkeypatch.setattr(nodes, "load_detector", lambda name: Detector(people))
    picture, _ = demo_reference(SIZE, SIZE)
    image = torch.from_numpy(picture[None].astype(np.float32) / 255)
    motion = torch.zeros(FRAMES, SIZE, SIZE, 3)
    components = {"LoadVideo": (None,), "GetVideoComponents": (motion, None, FPS)}
    executor = Executor(workflow, {"LoadImage": (image, None), **components})
    executor.results[executor.named("MimicMotionLoadCheckpoint")] = (tiny_pipeline,)
    return executor


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="convert"):
        nodes.LoadCheckpoint().load(str(tmp_path / "no"), "auto")


@pytest.mark.slow
def test_a_checkpoint_is_loaded(tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path, overwrite=True)
    (pipeline,) = nodes.LoadCheckpoint().load(str(tmp_path), "float32")
    assert pipeline.config == tiny_pipeline.config
    np.testing.assert_array_equal(pipeline.unet.conv_in.kernel[...], tiny_pipeline.unet.conv_in.kernel[...])


def test_the_workflow_makes_the_pipelines_video(executor, tiny_pipeline, comfy, people, tmp_path):
    saved = executor.run(executor.named("MimicMotionSaveVideo"))
    images, fps, _ = executor.run(executor.named("MimicMotionDecode"))
    reference, skeletons, _ = executor.run(executor.named("MimicMotionAlign"))
    points, scores = (np.stack(part) for part in zip(*people, strict=True))
    motion = Keypoints.from_coco(points.astype(np.float32), scores.astype(np.float32), SIZE, SIZE, FPS)
    picture, _ = demo_reference(SIZE, SIZE)
    options = {"width": SIZE, "height": SIZE, "num_inference_steps": 2, "decode_chunk_size": 2, "seed": 2**63 + 7}
    expected = tiny_pipeline(picture, motion, image_pose=motion[:1], **options)

    assert (images.dtype, tuple(images.shape), fps) == (torch.float32, (FRAMES, SIZE, SIZE, 3), FPS)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    np.testing.assert_allclose(images.numpy(), expected.frames, atol=1e-6)
    assert tuple(reference.shape) == (1, SIZE, SIZE, 3)
    drawn = expected.prepared.poses[: FRAMES + 1]
    np.testing.assert_array_equal(np.round(skeletons.numpy() * 255), drawn)
    assert comfy.steps == [(1, 2), (2, 2)]

    file = {"filename": "video_00001_.mp4", "subfolder": "", "type": "output"}
    assert saved == {"ui": {"images": [file], "animated": (True,)}}
    video = open_video(tmp_path / "video_00001_.mp4")
    assert (video.num_frames, video.fps) == (FRAMES, FPS)
    assert read_provenance(tmp_path / "video_00001_.mp4")["seed"] == str(2**63 + 7)


def test_cancel_ends_the_generation(executor, comfy):
    comfy.is_interrupted = True
    with pytest.raises(comfy.interruption):
        executor.run(executor.named("MimicMotionGenerate"))
    assert comfy.steps == []
