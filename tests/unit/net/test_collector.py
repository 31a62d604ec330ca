"""Full collections come rarely, and what was loaded at the start is not looked at."""

import ctypes
import gc
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from gossipmesh.net import collector
from gossipmesh.net.collector import CROWD, GIVE_BACK_S, LEFT_S, Leavings, calm_collector, give_back

_SMAPS = """\
7f00-7f10 r--p 00000000 fe:00 24 /usr/lib/libx.so
Anonymous:             0 kB
VmFlags: rd mr mw me
7f10-7f30 r-xp 00010000 fe:00 24 /usr/lib/libx.so
Anonymous:             0 kB
7f30-7f38 r--p 00030000 fe:00 24 /usr/lib/libx.so
Anonymous:             4 kB
7f38-7f40 rw-p 00038000 fe:00 24 /usr/lib/libx.so
Anonymous:             0 kB
8000-9000 r--p 00000000 00:00 0
Anonymous:             0 kB
a000-b000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
c000-d000 rw-p 00000000 fe:00 25 /srv/a r--p 0 0 1
Anonymous:             0 kB
"""


def test_what_is_loaded_is_frozen_and_full_collections_are_far_apart() -> None:
    before = gc.get_threshold()
    try:
        calm_collector()
        assert gc.get_freeze_count() > 1_000
        young, middle, full = gc.get_threshold()
        # As rare as after a hundred million objects, and no middle one looks at more than fits a step.
        assert young * (middle + 1) * full >= 100_000_000
        assert young * (middle + 1) <= 2_500
        loop: list[object] = []
        loop.append(loop)
        del loop
        assert gc.collect(0) >= 1
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def test_only_untouched_copies_of_files_are_let_go() -> None:
    found = list(collector._clean_of(_SMAPS))
    assert found == [(0x7F00, 0x7F10), (0x7F10, 0x7F30)]


def test_a_kernel_that_does_not_tell_what_is_mapped_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "_MAPS", tmp_path / "smaps")
    give_back()


def test_whoever_gives_back_goes_on_as_before() -> None:
    libraries = Path("/proc/self/maps").read_text().count("r-xp")
    give_back()
    assert Path("/proc/self/maps").read_text().count("r-xp") == libraries
    assert zlib.crc32(b"gossip") == 0x74560674
    assert ctypes.CDLL(None).getpid() > 0


def test_pages_are_given_back_now_and_then_and_soon_after_a_crowd_left() -> None:
    leavings = Leavings()
    assert [second for second in range(1, 3 * GIVE_BACK_S) if leavings.due(10)] == [30, 60]
    assert leavings.due(10)
    assert not any(leavings.due(10 + CROWD) for _ in range(LEFT_S + 1)), "while it is there"
    assert leavings.due(10), "when it has left"
    assert not any(leavings.due(10) for _ in range(GIVE_BACK_S - 1)), "once for one crowd"


def test_a_crowd_that_comes_and_goes_is_given_back_for_no_oftener_than_said() -> None:
    leavings = Leavings()
    due = [second for second in range(60) if leavings.due(CROWD if second % 2 else 0)]
    assert due
    assert all(later - earlier >= LEFT_S for earlier, later in pairwise(due))


def test_fewer_of_many_are_no_crowd_that_left() -> None:
    leavings = Leavings()
    counts = [5 * CROWD] * 5 + [4 * CROWD] * 10
    assert not any(leavings.due(count) for count in counts)
