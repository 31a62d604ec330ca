"""Depth-first search over forked processes: a state is a process, its successors are its children.

Cores hold closures and ciphers that cannot be copied, and a fork copies anything. One process runs at a time;
what they share (states seen, counters, the first violation) lies in shared memory.
"""

import gc
import mmap
import os
import struct
import traceback
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from gossipmesh.testing.explorer.mesh import Mesh, Violation

_SLOTS: Final = 1 << 19
_SLOT: Final = struct.Struct("!7sB")
_COUNTS: Final = struct.Struct("!QQQQQ")  # states, transitions, finished, deepest, stop
_TEXT_BYTES_MAX: Final = 16_384
_STOPPED_BY_VIOLATION: Final = 1
_STOPPED_BY_LIMIT: Final = 2


class Action(NamedTuple):
    """One thing that may happen next; `label` is how a violation's path names it.

    `is_loss`: it changes no core, so it is no use as the last action of a path.
    """

    label: str
    run: Callable[[Mesh], None]
    is_loss: bool = False


class Story(Protocol):
    """What is explored: a mesh made ready, what may happen in each state, and what must hold."""

    def prepare(self) -> Mesh:
        """Return the first state."""

    def actions(self, mesh: Mesh) -> list[Action]:
        """Return what may happen next; none ends the path."""

    def check(self, mesh: Mesh) -> None:
        """Raise `Violation` unless the state is as it must be."""

    def finish(self, mesh: Mesh) -> None:
        """Let everything arrive and raise `Violation` unless the mesh then comes to rest as it must."""

    def fingerprint(self, mesh: Mesh) -> bytes:
        """Return 7 bytes that are equal for states that need not be told apart."""


class Found(NamedTuple):
    """What a search did; `violation` is empty when all held, `complete` False when a limit ended it."""

    states: int
    transitions: int
    finished: int
    deepest: int
    complete: bool
    violation: str
    path: tuple[str, ...]


class _Shared:
    """Memory that all processes of one search see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _COUNTS.size + 4 + _TEXT_BYTES_MAX + _SLOTS * _SLOT.size)
        self._slots_at = _COUNTS.size + 4 + _TEXT_BYTES_MAX
        self._memory[: _COUNTS.size] = _COUNTS.pack(0, 0, 0, 0, 0)

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        states, transitions, finished, deepest, stop = _COUNTS.unpack(self._memory[: _COUNTS.size])
        return states, transitions, finished, deepest, stop

    def count(self, *, states: int = 0, transitions: int = 0, finished: int = 0, depth: int = 0) -> None:
        now = self.counts
        self._memory[: _COUNTS.size] = _COUNTS.pack(
            now[0] + states, now[1] + transitions, now[2] + finished, max(now[3], depth), now[4]
        )

    @property
    def stopped(self) -> int:
        return self.counts[4]

    def stop(self, reason: int, text: str = "") -> None:
        if self.stopped:
            return
        self._memory[: _COUNTS.size] = _COUNTS.pack(*self.counts[:4], reason)
        data = text.encode()[:_TEXT_BYTES_MAX]
        at = _COUNTS.size
        self._memory[at : at + 4] = len(data).to_bytes(4, "big")
        self._memory[at + 4 : at + 4 + len(data)] = data

    @property
    def text(self) -> str:
        at = _COUNTS.size
        size = int.from_bytes(self._memory[at : at + 4], "big")
        return self._memory[at + 4 : at + 4 + size].decode()

    def is_new(self, name: bytes, left: int) -> bool:
        """Note a state with that many actions left to take; False when it was explored as far before."""
        number = int.from_bytes(name, "big") % _SLOTS
        for _ in range(_SLOTS):
            at = self._slots_at + number * _SLOT.size
            held, held_left = _SLOT.unpack(self._memory[at : at + _SLOT.size])
            if held == bytes(7):
                break
            if held == name:
                if held_left >= left + 1:
                    return False
                break
            number = (number + 1) % _SLOTS
        else:
            raise MemoryError("more states than the table of seen ones holds")
        self._memory[at : at + _SLOT.size] = _SLOT.pack(name, left + 1)
        return True


class Search:
    """One search of a story to a depth; `states_max` bounds its cost.

    Of the paths that end, one in `finish_every` (drawn by the state's name) is also let come to rest.
    """

    def __init__(self, story: Story, *, depth: int, states_max: int, finish_every: int = 1) -> None:
        self._story = story
        self._finish_every = finish_every
        self._depth = depth
        self._states_max = min(states_max, _SLOTS // 2)
        self._shared = _Shared()
        self._path: list[str] = []

    def run(self) -> Found:
        """Explore, in a process of its own, so that nothing of it stays here."""
        self._in_child(self._begin)
        states, transitions, finished, deepest, stop = self._shared.counts
        violation, *path = self._shared.text.split("\n") if stop == _STOPPED_BY_VIOLATION else ("",)
        return Found(states, transitions, finished, deepest, not stop, violation, tuple(path))

    def _begin(self) -> None:
        mesh = self._story.prepare()
        gc.collect()
        gc.freeze()
        gc.disable()
        self._story.check(mesh)
        self._shared.count(states=1)
        name = self._story.fingerprint(mesh)
        self._shared.is_new(name, self._depth)
        self._explore(mesh, self._depth, name)

    def _explore(self, mesh: Mesh, left: int, name: bytes) -> None:
        actions = self._story.actions(mesh) if left else []
        if left == 1:
            actions = [action for action in actions if not action.is_loss]
        for action in actions:
            if self._shared.stopped:
                return
            self._path.append(action.label)
            self._in_child(partial(self._take, mesh, action, left - 1))
            self._path.pop()
        if not actions and not self._shared.stopped and name[-1] % self._finish_every == 0:
            self._shared.count(finished=1)
            self._path.append("(everything arrives)")
            self._story.finish(mesh)

    def _take(self, mesh: Mesh, action: Action, left: int) -> None:
        action.run(mesh)
        self._shared.count(transitions=1, depth=self._depth - left)
        self._story.check(mesh)
        name = self._story.fingerprint(mesh)
        if not self._shared.is_new(name, left):
            return
        self._shared.count(states=1)
        if self._shared.counts[0] >= self._states_max:
            self._shared.stop(_STOPPED_BY_LIMIT)
        self._explore(mesh, left, name)

    def _in_child(self, act: Callable[[], None]) -> None:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        try:
            act()
        except Violation as violation:
            self._shared.stop(_STOPPED_BY_VIOLATION, "\n".join([str(violation), *self._path]))
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            sentence = f"a core raised {type(error).__name__}: {error} ({place.name}, line {place.lineno})"
            self._shared.stop(_STOPPED_BY_VIOLATION, "\n".join([sentence.replace("\n", " "), *self._path]))
        finally:
            os._exit(0)
