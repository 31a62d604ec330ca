"""A deny of `/admin/*` holds for every way of writing a path that a real server takes for one below it.

`paths.json` is what was seen: for each target, which of Tomcat 10.1, Express 5, Flask 3, nginx 1.22, PHP 8.2
(`php -S`) and a Node server that resolves URLs ran its handler of `/admin/...`; and what an engine answers.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.model.policy import AccessRuleSpec, AccessTo, Document
from tests.unit.dataplane.engine_kit import Peer, answering, cart_pair, endpoint, local, policies, workload
from tests.unit.traffic.builders import access_policy

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "paths.json").read_text())
PASSES = 200


def deny() -> Document:
    return access_policy("cart", "Deny", AccessRuleSpec(to=(AccessTo(paths=("/admin/*",)),)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["path"].encode("unicode_escape").decode())
def test_what_a_server_takes_for_a_denied_path_never_passes(case: dict[str, Any]) -> None:
    assert not (case["reached"] and case["status"] == PASSES)


async def test_engines_answer_so(tmp_path: Path) -> None:
    """Each target on a connection of its own, through the caller's engine and the callee's."""
    wrong: list[str] = []
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        await far.apply(local=(local(address),), catalog=(endpoint(far),), policies=policies(deny()))
        for case in CASES:
            peer = await Peer.connect(near.at("proxy"))
            async with peer.stream:
                head = f"GET {case['path']} HTTP/1.1\r\nHost: {case.get('host', 'cart.shop')}\r\n\r\n"
                status, _, _ = await peer.ask(head.encode("latin-1"))
            if status != case["status"]:
                wrong.append(f"{case['path']!r}: {status}, not {case['status']}")
    assert wrong == []
