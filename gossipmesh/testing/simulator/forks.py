"""Forks of one prepared world: each goes on in a process of its own and sends back what it showed.

A large mesh is prepared once and told many stories: a fork shares the memory of its parent until it
writes, so the records that all cores hold are not copied. Nothing a fork does changes its parent.
"""

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Task = TypeVar("Task")


def in_forks(
    tell: Callable[[Task], bytes], tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Task, bytes | None]]:
    """Call `tell` in a fork for each task, `jobs` at a time; yield as they end.

    None stands for a fork that ended without a word: its traceback went to stderr. Ctrl-C ends the forks
    without one, and whatever ends this process ends them, too.
    """
    forks = multiprocessing.get_context("fork")
    # What was prepared is no garbage: a collection in a fork passes it over, and leaves its pages shared.
    gc.collect()
    gc.freeze()
    waiting = list(tasks)
    running: dict[Any, tuple[Task, Any]] = {}
    while waiting or running:
        while waiting and len(running) < max(1, jobs):
            task = waiting.pop(0)
            here, there = forks.Pipe(duplex=False)
            process = forks.Process(target=_child, args=(there, tell, task), daemon=True)
            process.start()
            there.close()
            running[here] = (task, process)
        for connection in wait(list(running)):
            task, process = running.pop(connection)
            yield task, _received(connection)
            process.join()


def _received(connection: Any) -> bytes | None:
    try:
        line: bytes = connection.recv_bytes()
    except EOFError:
        return None
    return line


def _child(connection: Connection, tell: Callable[[Task], bytes], task: Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says what was interrupted
    connection.send_bytes(tell(task))
    connection.close()
