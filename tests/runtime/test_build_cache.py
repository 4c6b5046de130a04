"""The cache of finished pieces: names from content, damage, and pieces that appear whole."""

import pytest
from etils import epath

from mimicmotion_jax.runtime.build_cache import BuildCache, content_key


def test_keys_depend_on_values_and_not_on_the_order_of_keys():
    assert content_key({"a": 1, "b": [2, None]}, "x") == content_key({"b": [2, None], "a": 1}, "x")
    different = [("x",), ("x", None), ("x", 1), ("x", 1.5), ("x", "1"), ("x", [1]), ("x1",), ("x", {"1": 1})]
    assert len({content_key(*parts) for parts in different}) == len(different)
    assert len(content_key()) == 32


@pytest.mark.parametrize("error", [ValueError("junk"), MemoryError(), KeyError("a"), OSError(22, "Invalid argument")])
def test_missing_and_damaged_pieces_are_none(tmp_path, error, caplog):
    cache = BuildCache(str(tmp_path / "cache"))
    assert cache.names() == frozenset()
    assert cache.load("a", epath.Path.read_bytes) is None
    (tmp_path / "cache").mkdir()
    cache.store("a", b"1")
    cache.store("a", b"2")
    assert cache.load("a", epath.Path.read_bytes) == b"2"
    assert cache.names() == {"a"}  # nothing temporary remains

    def fail(path: epath.Path) -> bytes:
        raise error

    assert cache.load("a", fail) is None
    assert "is damaged" in caplog.text


def test_pieces_are_removed_by_the_end_of_their_names(tmp_path):
    cache = BuildCache(str(tmp_path))
    for name in ("a.json", "a.npz", "b.json", ".a.json.12.tmp"):
        cache.store(name, b"")
    cache.remove(".tmp", "b.json")
    assert cache.names() == {"a.json", "a.npz"}


def test_writing_where_nothing_can_be_written_is_the_system_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        BuildCache(str(tmp_path / "file")).store("a", b"")
