"""Work for the host that goes on while the device is busy."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread makes the next one while the caller works on the one before.

    Whatever the iterator raises is raised here in its turn. The thread does not keep the program from ending.
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
