"""Preparation of the next item in a thread, while the device works on the present one."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items; a thread computes the next one while the caller works on the present one.

    An exception of the iterator is raised when its item is due. The thread does not outlive the program.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while wanted.get():
            try:
                made.put(([next(items)], None))
            except StopIteration:
                made.put(([], None))
            except BaseException as error:
                made.put(([], error))

    threading.Thread(target=work, name="prefetch", daemon=True).start()
    wanted.put(True)
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if not item:
                return
            wanted.put(True)
            yield item[0]
    finally:
        wanted.put(False)
