"""Stories of hostile members and newcomers are frozen, too: their packets have digests that are kept.

What a story shows is checked by its test; here that nothing else changed beside it. Digests stand in
`stories.json`; when behaviour changes on purpose (docs/TESTING.md says when), run these tests without
`-n` and with `GOSSIPMESH_FROZEN=update`. Kept mutants set `off`: a test must notice them by what it checks.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gossip.group import Group

KEPT = Path(__file__).with_name("stories.json")
FROZEN = ("test_byzantine", "test_newcomers")
VARIABLE = "GOSSIPMESH_FROZEN"


def digest_of(groups: list[Group]) -> str:
    """Return a digest over every datagram that was sent in some groups: when, by whom, to whom, its bytes."""
    digest = hashlib.blake2b(digest_size=12)
    for group in groups:
        for at_ns, sender, receiver, payload in group.trace:
            digest.update(f"{at_ns} {sender} {receiver} {payload.hex()}\n".encode())
    return digest.hexdigest()


@pytest.fixture(autouse=True)
def frozen_story(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare what the groups of a story sent with what is kept, when the test is over."""
    if not request.path.name.startswith(FROZEN) or os.environ.get(VARIABLE) == "off":
        yield
        return
    groups: list[Group] = []
    begin = Group.__init__

    def remembered(self: Group, *names: object, **settings: object) -> None:
        begin(self, *names, **settings)  # type: ignore[arg-type]
        groups.append(self)

    monkeypatch.setattr(Group, "__init__", remembered)
    yield
    if groups:
        _compare(f"{request.path.stem}::{request.node.name}", digest_of(groups))


def _compare(name: str, found: str) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    if os.environ.get(VARIABLE) == "update":
        text = json.dumps(dict(sorted({**kept, name: found}.items())), indent=0)
        KEPT.write_text(text + "\n", encoding="utf-8")
        return
    assert kept.get(name) == found, (
        f"{name} sends other packets than before: if that is meant (an ADR says why), run it again with "
        f"{VARIABLE}=update"
    )
