"""Metric networks against PyTorch, read from files in the published layouts; other files are refused."""

import hashlib

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from official import jit
from safetensors.torch import save_file

from mimicmotion_jax.convert.metric_networks import load_metric_network
from mimicmotion_jax.metrics import MetricNetwork, clip_features, frechet_distance, lpips
from mimicmotion_jax.metrics.features import squash
from mimicmotion_jax.runtime.errors import InputError

MEAN_COLOUR = torch.tensor([114.7748, 107.7354, 99.4750])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth_video(frames: int, height: int, width: int) -> np.ndarray:
    """Moving waves: neighbouring clips differ a little."""
    t, y, x, c = np.meshgrid(*map(np.arange, (frames, height, width, 3)), indexing="ij")
    return np.uint8(127.5 + 100 * np.sin(0.3 * t + 0.2 * y * (1 + c / 3)) * np.cos(0.15 * x - 0.1 * t))


def to_torch(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(frames, -1, 1)).float()


def compiled(network):
    graph, state = nnx.split(network.module)
    function = jit(lambda state, clips: nnx.merge(graph, state)(clips))
    return lambda clips: np.asarray(function(state, clips.astype(np.float32)))


def windows_of(video: np.ndarray) -> np.ndarray:
    return np.stack([video[:16], video[1:17]])


def assert_distance_grows_with_noise(run, video: np.ndarray, features: np.ndarray, levels: tuple[int, ...]) -> None:
    grain = np.random.default_rng(0).normal(size=video.shape)
    distances = [frechet_distance(features, features)]
    for level in levels:
        noisy = np.uint8(np.clip(video + level * grain, 0, 255))
        distances.append(frechet_distance(run(windows_of(noisy)), features))
    assert distances[0] < 1e-9 * distances[1]
    assert distances == sorted(distances)


@torch.no_grad()
def test_i3d_equals_pytorch_at_odd_sizes(i3d, error):
    video = smooth_video(17, 55, 70)  # every layer but the first pads unevenly somewhere
    clips, run = windows_of(video), compiled(i3d.network)
    expected = i3d.module(torch.from_numpy(clips).float().permute(0, 4, 1, 2, 3) / 127.5 - 1)
    assert expected.std() > 0.05
    features = run(clips)
    assert error(features, expected) < 2e-5
    assert_distance_grows_with_noise(run, video, features, (20,))


@torch.no_grad()
def test_resnet3d_equals_pytorch_at_odd_sizes(resnet3d, error):
    video = smooth_video(17, 45, 70)
    clips, run = windows_of(video), compiled(resnet3d.network)
    expected = resnet3d.module(torch.from_numpy(clips).float().sub(MEAN_COLOUR).permute(0, 4, 1, 2, 3))
    assert expected.std() > 0.05
    features = run(clips)
    assert error(features, expected) < 2e-5
    assert_distance_grows_with_noise(run, video, features, (4, 40))


@torch.no_grad()
def test_lpips_equals_pytorch(alex, error):
    a, b = noise(3, 64, 83, 3, seed=1), noise(3, 64, 83, 3, seed=2)
    expected = alex.module(to_torch(a) / 127.5 - 1, to_torch(b) / 127.5 - 1)
    assert error(lpips(alex.network, a, b, batch_size=2, progress=False), expected) < 2e-5
    np.testing.assert_allclose(lpips(alex.network, a, a, progress=False), 0, atol=1e-12)


def test_squash_is_the_antialiased_bicubic_filter():
    """PyTorch's filter has the same kernel; values beyond 0 to 255 are kept."""
    frames = np.where(noise(2, 45, 80, 3) > 127, 255, 0).astype(np.uint8)
    for size in (32, 60):
        expected = F.interpolate(to_torch(frames), (size, size), mode="bicubic", antialias=True, align_corners=False)
        squashed = squash(frames, size)
        np.testing.assert_allclose(np.moveaxis(squashed, -1, 1), expected, atol=2e-3)
    assert squashed.min() < -1
    assert squashed.max() > 256


def test_frames_are_resized_to_the_published_sizes(i3d, resnet3d):
    """DisCo's evaluation uses 224 pixels for FVD and 112 for FID-VID."""
    assert (i3d.network.module.input_size, resnet3d.network.module.input_size) == (224, 112)


class MeanColour(nnx.Module):
    """Replaces a large network where only the choice of windows matters."""

    input_size = 8

    def __call__(self, clips):
        return clips.mean((2, 3)).reshape(len(clips), -1)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_windows_do_not_depend_on_the_batch_size(batch_size):
    video = noise(22, 20, 30, 3)
    features = clip_features(MetricNetwork("i3d", MeanColour(), {}), video, batch_size=batch_size, progress=False)
    assert features.dtype == np.float32
    colours = squash(video, 8).mean((1, 2))
    np.testing.assert_allclose(features, [colours[i : i + 16].ravel() for i in range(7)], rtol=1e-5)


def test_products_use_full_precision(i3d, resnet3d, alex):
    clip, frame = jax.ShapeDtypeStruct((1, 16, 64, 64, 3), "float32"), jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    for published, inputs, count in ((i3d, [clip], 58), (resnet3d, [clip], 53), (alex, [frame, frame], 10)):
        equations = jax.make_jaxpr(published.network.module)(*inputs).eqns
        precisions = [
            e.params["precision"] for e in equations if e.primitive.name in ("conv_general_dilated", "dot_general")
        ]
        assert precisions == [(jax.lax.Precision.HIGHEST,) * 2] * count


def test_sha256_of_every_file_is_recorded(alex):
    assert alex.network.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in alex.paths}


def test_safetensors_are_read_too(alex, tmp_path):
    save_file(alex.module.lins(), tmp_path / "alex.safetensors")
    network = load_metric_network("lpips", alex.paths[0], tmp_path / "alex.safetensors")
    np.testing.assert_array_equal(network.module.lins[4].kernel[...], alex.network.module.lins[4].kernel[...])


def test_a_video_without_a_window_is_refused(resnet3d):
    with pytest.raises(InputError, match="video of 15 frames has no window of 16"):
        clip_features(resnet3d.network, noise(15, 20, 20, 3), progress=False)


def test_lpips_refuses_frames_of_other_or_too_small_sizes(alex):
    with pytest.raises(InputError, match="2 frames of 40x32 but the reference is 2 frames of 32x40"):
        lpips(alex.network, noise(2, 32, 40, 3), noise(2, 40, 32, 3), progress=False)
    with pytest.raises(InputError, match="at least 31x31 pixels, not 40x30"):
        lpips(alex.network, noise(2, 30, 40, 3), noise(2, 30, 40, 3), progress=False)
    assert np.isfinite(lpips(alex.network, noise(1, 31, 31, 3), noise(1, 31, 31, 3, seed=1), progress=False)).all()


def damage(state: dict[str, torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    weight = state.pop("lin3.model.1.weight")
    changed = {
        "missing": {},
        "mis-shaped": {"lin3.model.1.weight": weight[:, 1:]},
        "unmapped": {"lin3.model.1.weight": weight, "lin5.model.1.weight": weight},
        "not finite": {"lin3.model.1.weight": weight * float("nan")},
    }
    return state | changed[what]


@pytest.mark.parametrize("what", ["missing", "mis-shaped", "unmapped", "not finite"])
def test_tensors_that_do_not_fit_are_named(alex, tmp_path, what):
    torch.save(damage(alex.module.lins(), what), tmp_path / "alex.pth")
    with pytest.raises(InputError, match=rf"(?s)(?=.*{what})(?=.*lin[35]\.model\.1\.weight)"):
        load_metric_network("lpips", alex.paths[0], tmp_path / "alex.pth")


def test_files_of_other_networks_are_refused(alex, i3d, tmp_path):
    with pytest.raises(InputError, match=r"no weight file .*absent\.pt for i3d; get i3d_pretrained_400\.pt"):
        load_metric_network("i3d", tmp_path / "absent.pt")
    with pytest.raises(InputError, match=r"lpips needs 2 weight file\(s\)"):
        load_metric_network("lpips", alex.paths[1])
    with pytest.raises(InputError, match=r"given as resnet3d.* holds another network"):
        load_metric_network("resnet3d", *i3d.paths)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(alex.paths[0].read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.pth was refused"):
        load_metric_network("lpips", cut, alex.paths[1])
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="list instead of a dictionary"):
        load_metric_network("i3d", tmp_path / "list.pth")
