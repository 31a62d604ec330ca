"""Full collections come rarely, and what was loaded at the start is not looked at."""

import gc

from gossipmesh.net.collector import calm_collector


def test_what_is_loaded_is_frozen_and_full_collections_are_far_apart() -> None:
    before = gc.get_threshold()
    try:
        calm_collector()
        assert gc.get_freeze_count() > 1_000
        assert gc.get_threshold()[2] >= 100
        loop: list[object] = []
        loop.append(loop)
        del loop
        assert gc.collect(0) >= 1
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
