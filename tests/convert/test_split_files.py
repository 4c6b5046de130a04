"""Checkpoints as others save them: UNet and PoseNet in two files, and the prefixes of training frameworks."""

import pytest
import torch
from safetensors.torch import save_file
from test_official import assert_holds

from mimicmotion_jax.checkpoint import read_config
from mimicmotion_jax.cli.convert import main
from mimicmotion_jax.convert import convert
from mimicmotion_jax.convert.tables import unwrap_key
from mimicmotion_jax.runtime.errors import InputError


def test_comfyuis_two_files_are_the_official_one(made, tmp_path, capsys):
    unet, pose_net = tmp_path / "MimicMotionMergedUnet_1-0-fp16.safetensors", tmp_path / "pose_net.pth"
    save_file(made.state["unet"], unet)
    torch.save(made.state["pose_net"], pose_net)
    with pytest.raises(InputError, match="holds a UNet and no PoseNet; give the file of the PoseNet as --pose-net"):
        convert(str(made.svd), str(unet), tmp_path / "out", progress=False)
    inputs = ("--svd", str(made.svd), "--mimicmotion", str(unet), "--pose-net", str(pose_net))
    main([*inputs, "--output", str(tmp_path / "out")])
    assert_holds(tmp_path / "out", made.state)
    assert read_config(tmp_path / "out").window_size == 16  # said by the name
    with pytest.raises(InputError, match="goes with a UNet's"):
        convert(str(made.svd), "none", tmp_path / "other", pose_net=str(pose_net), progress=False)
    torch.save({**made.state["pose_net"], "new": torch.ones(1)}, pose_net)
    with pytest.raises(InputError, match=r"pose_net\.pth does not fit .*1 unmapped \(new\)"):
        convert(str(made.svd), str(unet), tmp_path / "other", pose_net=str(pose_net), progress=False)


def wrapped(key):
    """A different wrapper for each tensor; `model.` is stripped at the front only."""
    wrappers = ["module.", "model.", "_orig_mod.", "model.module.", "_fsdp_wrapped_module._checkpoint_wrapped_module."]
    first = wrappers[len(key) % len(wrappers)]
    return first + key.replace("conv_in.", "_orig_mod.conv_in.").replace("mid_block.", "mid_block.module.")


def test_prefixes_of_training_frameworks_are_stripped(made, tmp_path):
    state = {f"{name}.{key}": value for name in ("unet", "pose_net") for key, value in made.state[name].items()}
    torch.save(
        {"epoch": 3, "state_dict": {wrapped(key): value for key, value in state.items()}}, tmp_path / "a.ckpt.pt"
    )
    convert(str(made.svd), str(tmp_path / "a.ckpt.pt"), tmp_path / "out", window_size=16, progress=False)
    assert_holds(tmp_path / "out", made.state)
    torch.save({wrapped(f"unet.{key}"): value for key, value in made.state["unet"].items()}, tmp_path / "unet.pth")
    pose_net = {f"module.pose_net.{key}": value for key, value in made.state["pose_net"].items()}
    torch.save({"module": pose_net}, tmp_path / "pose_net.pth")
    files = {"pose_net": str(tmp_path / "pose_net.pth"), "window_size": 16, "progress": False}
    convert(str(made.svd), str(tmp_path / "unet.pth"), tmp_path / "two", **files)
    assert_holds(tmp_path / "two", made.state, ("unet", "pose_net"))


def test_a_networks_own_names_are_kept():
    for key in ("vision_model.embeddings.class_embedding", "lin0.model.1.weight", "modules.0.weight", "scale"):
        assert unwrap_key(key) == key
    assert unwrap_key("module.model.lin0.model.1.weight") == "lin0.model.1.weight"
