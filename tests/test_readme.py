"""The README's Python runs as it stands, but for the files' names and the number of steps."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_runs(tmp_path):
    source = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 96, 3), np.uint8)).save(tmp_path / "person.png")
    save_keypoints(demo_motion(5), tmp_path / "dance.npz")
    for said, here in {
        "checkpoints/mimicmotion": str(ROOT / "weights" / "small"),
        "bfloat16": "float32",
        "person.jpg": str(tmp_path / "person.png"),
        "dance.mp4": str(tmp_path / "dance.npz"),
        "person.mp4": str(tmp_path / "person.mp4"),
        'align="limb"': 'align="none", size=(96, 128)',  # nobody is in that noise
        "num_inference_steps=25": "num_inference_steps=1",
    }.items():
        assert said in source
        source = source.replace(said, here)
    names = {}
    exec(source, names)
    frames = names["out"].frames
    assert (frames.shape, frames.dtype) == ((5, 128, 96, 3), np.float32)
    assert 0 <= frames.min() < frames.max() <= 1
