"""What the admin API tells of many members is made in small steps."""

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import trio

from gossipmesh.agent.admin import admin_views
from gossipmesh.model.service import NodeEndpoints
from gossipmesh.testing.builders import node_endpoints

_STEP_MAX = 50


class ManyMembers:
    """What the views of services read of a core: a thousand members, one of which serves `shop/cart`."""

    def __init__(self) -> None:
        self.looked_at = 0

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        for number in range(1_000):
            self.looked_at += 1
            yield node_endpoints(f"n{number}", "shop/cart" if number == 700 else "shop/other")


async def test_a_service_few_serve_is_found_in_small_steps() -> None:
    node = ManyMembers()
    steps: list[int] = []

    async def watch() -> None:
        while True:
            steps.append(node.looked_at)
            await trio.lowlevel.checkpoint()

    parts: Any = SimpleNamespace(node=node)
    response = admin_views.endpoints(parts, "shop/cart")
    body = response.body
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        assert response.more is not None
        async for piece in response.more:
            body += piece
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert [row["node"] for row in json.loads(body)] == ["n700"]
    assert steps[-1] == 1_000
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) <= _STEP_MAX
