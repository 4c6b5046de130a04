"""Window sizes of official weights: from an option, from content, or an assumption that is logged; never SVD's own."""

import shutil

import pytest
import torch

from mimicmotion_jax.convert.official import find_window_size
from mimicmotion_jax.convert.sources import Weights
from mimicmotion_jax.convert.torch_files import open_tensor_file
from mimicmotion_jax.runtime.errors import InputError


def find(motion, given=None, argument="given", **unet):
    """The window size for a file of weights beside a UNet's configuration."""
    return find_window_size(given, unet, argument, Weights(str(motion), [open_tensor_file(str(motion), motion)]))[0]


def test_the_window_is_said_by_an_option_the_content_or_the_release(tmp_path, caplog):
    saved, renamed = tmp_path / "MimicMotion_1-1.pth", tmp_path / "mm.pth"
    torch.save({"a": torch.ones(1)}, saved)
    shutil.copy(saved, renamed)
    other = tmp_path / "MimicMotion_1.pth"
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    (tmp_path / "other.pth").rename(other)
    assert find(saved) == find(renamed) == 72  # the archive in it keeps the name that it was saved under
    assert find(other) == 16
    assert find(other, given=24) == 24
    assert find(other, num_frames=25, _mimicmotion_window_size=20) == 20
    assert "assumed" in caplog.text
    assert "--window-size" in caplog.text


@pytest.mark.parametrize("num_frames", [14, 25])
def test_a_renamed_release_never_takes_the_window_of_svd(num_frames, tmp_path):
    """Released weights that lost their name: neither they nor SVD's configuration know the window."""
    torch.save({"a": torch.ones(1)}, tmp_path / "mm.pth")
    with pytest.raises(InputError, match=r"--window-size \(16 .*72 "):
        find(tmp_path / "mm.pth", num_frames=num_frames)
    assert find(tmp_path / "mm.pth", given=72, num_frames=num_frames) == 72
    assert find(tmp_path / "mm.pth", argument="none", num_frames=num_frames) == num_frames  # SVD itself
    assert find(tmp_path / "mm.pth", num_frames=6) == 6  # not SVD's: somebody's statement
