"""Prefetching: the same items in the same order, one ahead, and errors when their item is due."""

import threading

import pytest

from mimicmotion_jax.inference.prefetch import prefetch


def test_same_items_one_ahead():
    made = [threading.Event() for _ in range(5)]

    def numbers():
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in prefetch(numbers()):
        if number < 4:
            assert made[number + 1].wait(timeout=30)  # the next one is computed meanwhile
        if number < 3:
            assert not made[number + 2].wait(timeout=0.05)  # but not the one after it
    assert number == 4


def test_errors_come_in_their_turn():
    def failing():
        yield "first"
        raise KeyError("second")

    items = prefetch(failing())
    assert next(items) == "first"
    with pytest.raises(KeyError, match="second"):
        next(items)


def test_thread_ends_with_the_caller():
    others = set(threading.enumerate())  # of generators that tests before have left
    items = prefetch(iter(range(100)))
    next(items)
    (thread,) = (t for t in threading.enumerate() if t.name == "prefetch" and t not in others)
    items.close()
    thread.join(timeout=30)
    assert not thread.is_alive()
