"""Reading and writing PyTorch's files: every format, damaged ones, hostile ones."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimicmotion_jax.convert.torch_files import open_tensor_file
from mimicmotion_jax.convert.torch_writers import Spec, pickle_writer, safetensors_writer
from mimicmotion_jax.runtime.errors import InputError

TENSORS = {
    "half": torch.arange(12, dtype=torch.float16).reshape(3, 4),
    "brain": torch.tensor([1.5, -2.25, 3e38], dtype=torch.bfloat16),
    "single": torch.linspace(0, 1, 700).reshape(7, 100),
    "scalar": torch.tensor(2.0),
}


def save_legacy(tensors, path):
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


FORMATS = {
    "a.pth": torch.save,
    "a.pt": torch.save,
    "a.bin": torch.save,
    "before_2020.pth": save_legacy,
    "a.safetensors": save_file,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_exactly(name, tmp_path):
    FORMATS[name](TENSORS, tmp_path / name)
    file = open_tensor_file(name, tmp_path / name)
    listed = {entry.key: (entry.shape, entry.dtype, entry.size) for entry in file.entries}
    expected = {k: (tuple(v.shape), str(v.dtype).removeprefix("torch."), v.numel()) for k, v in TENSORS.items()}
    assert listed == expected
    read = file.read(["brain", "single"])
    assert set(read) == {"brain", "single"}
    assert all(torch.equal(read[key], TENSORS[key]) for key in read)


class Hostile:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_hostile_pickle_is_refused_and_not_run(save, tmp_path):
    save({**TENSORS, "extra": Hostile(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth was refused and nothing in it was run: .* asks for posix\.mkdir"):
        open_tensor_file("x.pth", tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_hostile_pickle_is_refused_and_not_run(protocol, tmp_path):
    (tmp_path / "x.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "ran"), protocol))
    with pytest.raises(InputError, match=r"x\.bin was refused and nothing in it was run"):
        open_tensor_file("x.bin", tmp_path / "x.bin")
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "x.bin").read_bytes())
    assert (tmp_path / "ran").exists(), "the pickle above is not hostile"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.99])
def test_truncated_files_are_one_sentence(name, kept, tmp_path):
    path = tmp_path / name
    FORMATS[name](TENSORS, path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(InputError, match=f"{name} (is|was).* truncated.*fetch it again") as caught:
        open_tensor_file(name, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "a.safetensors"])
def test_flipped_bits_are_found_where_there_are_checksums(name, tmp_path):
    """In numbers, where nothing else could tell; the format of before 2020 has no checksums."""
    path = tmp_path / name
    FORMATS[name](TENSORS, path)
    open_tensor_file(name, path).verify()
    content = bytearray(path.read_bytes())
    numbers = TENSORS["single"].numpy().tobytes()
    content[content.index(numbers) + 400] ^= 1
    path.write_bytes(content)
    file = open_tensor_file(name, path)
    assert not torch.equal(file.read(["single"])["single"], TENSORS["single"])
    if name == "before_2020.pth":
        file.verify()
        return
    with pytest.raises(InputError, match=rf"^{name} is damaged \(its record \S+/data/\d has another checksum\); fetch"):
        file.verify()


def test_torch_may_leave_the_checksums_out(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    open_tensor_file("x.pth", tmp_path / "x.pth").verify()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": TENSORS}, "'weights' holds a dict; save the state dict alone"),
        ({"half": TENSORS["half"], "epoch": 3}, "'epoch' holds a int"),
        (TENSORS["half"], "holds a Tensor instead of a dictionary"),
        (torch.nn.Linear(2, 2), "besides tensors it asks for torch.nn.modules.linear.Linear"),
    ],
)
def test_pickles_of_other_things_are_explained(content, message, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=message):
        open_tensor_file("x.pth", tmp_path / "x.pth")


def test_a_web_page_in_place_of_weights_is_explained(tmp_path):
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_text("<!doctype html><title>Login</title>" * 10)
        with pytest.raises(InputError, match="fetch it again"):
            open_tensor_file(name, tmp_path / name)
    with pytest.raises(InputError, match=r"x\.ckpt2 is not a checkpoint file"):
        open_tensor_file("x.ckpt2", tmp_path / "x.ckpt2")


SPECS = [Spec(key, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in TENSORS.items()]


def test_written_pickle_is_what_torch_writes(tmp_path):
    with pickle_writer(tmp_path / "x.pth", SPECS) as add:
        for tensor in TENSORS.values():
            add(tensor)
    for mmap in (False, True):
        read = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)
        assert list(read) == list(TENSORS)
        assert all(torch.equal(read[key], TENSORS[key]) and read[key].dtype == TENSORS[key].dtype for key in TENSORS)
        assert all(tensor.data_ptr() % 64 == 0 for tensor in read.values())
    torch.save(TENSORS, tmp_path / "y.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as ours, zipfile.ZipFile(tmp_path / "y.pth") as theirs:
        assert ours.testzip() is None
        assert [name.partition("/")[2] for name in ours.namelist()] == [
            name.partition("/")[2] for name in theirs.namelist()
        ]
    assert [path.name for path in tmp_path.iterdir()] in (["x.pth", "y.pth"], ["y.pth", "x.pth"])


def test_written_safetensors_are_what_the_library_reads(tmp_path):
    with safetensors_writer(tmp_path / "x.safetensors", SPECS) as add:
        for tensor in TENSORS.values():
            add(tensor)
    read = load_file(tmp_path / "x.safetensors")
    assert set(read) == set(TENSORS)
    assert all(torch.equal(read[key], TENSORS[key]) and read[key].dtype == TENSORS[key].dtype for key in TENSORS)


@pytest.mark.parametrize("writer", [pickle_writer, safetensors_writer])
def test_writers_insist_on_what_was_announced(writer, tmp_path):
    with pytest.raises(RuntimeError, match="half came as"), writer(tmp_path / "x", SPECS) as add:
        add(TENSORS["single"])
    with pytest.raises(RuntimeError, match=r"fewer tensors|brain was announced"), writer(tmp_path / "x", SPECS) as add:
        add(TENSORS["half"])
