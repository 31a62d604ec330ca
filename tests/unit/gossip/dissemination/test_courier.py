"""When queued news leaves: at once to a few, on two early ticks to those it missed, then on slow ones."""

import pytest

from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.model.records import RecordKind
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import Group

NAMES = "a b c d e f g h i j k l"


class Outbox:
    """A node's courier with nothing queued, and when it sent what from now on, in ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.group: Group = voting(NAMES)
        self.node = self.group.node("a")
        self.courier: Courier = self.node._courier
        self.group.run_until(lambda: not len(self.courier.queue), 30)
        self.began = self.node._ctx.now = Instant(self.group.now)
        self.rounds_ms: list[int] = []

        def send(member: Member, messages: list[bytes], *, fill: bool = True) -> None:
            if not messages and fill:
                self.courier.queue.fill(1_000, 32)
                self.rounds_ms.append((self.node._ctx.now - self.began) // MILLISECOND_NS)

        monkeypatch.setattr(self.courier, "send", send)

    def enqueue(self, name: bytes) -> None:
        self.courier.enqueue((RecordKind.SERVICE_SET, name, b""), b"\x92\x0a\xc0")

    def push(self) -> None:
        self.courier.push([b"\x92\x0a\xc0"], b"")

    def wait(self, until_ms: int) -> list[int]:
        """Let the node's timers fire up to then; return when its ticks were, each once."""
        for at_ms in range((self.node._ctx.now - self.began) // MILLISECOND_NS, until_ms + 1):
            self.node.handle_deadline(Instant(self.began + at_ms * MILLISECOND_NS))
        return sorted(set(self.rounds_ms))


def test_what_is_not_urgent_waits_for_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    outbox.enqueue(b"one")
    assert outbox.wait(650) == [200, 400, 600]


def test_what_was_forwarded_rides_on_two_early_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fan-out four reaches 98 % in some 20 ms; the others would learn 200 ms later."""
    outbox = Outbox(monkeypatch)
    outbox.enqueue(b"one")
    outbox.push()
    assert outbox.wait(250) == [50, 100, 200]


def test_early_ticks_spend_the_sendings_of_an_update_and_add_none(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    outbox.enqueue(b"one")
    sends_max = outbox.courier._ctx.settings.transmit_mult * 2  # 12 members: two decades
    outbox.push()
    outbox.wait(2_000)
    assert len(outbox.rounds_ms) == sends_max


def test_news_upon_news_has_two_early_ticks_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten deaths at once, each would bring forward the ticks of all."""
    outbox = Outbox(monkeypatch)
    for number in range(26):
        outbox.enqueue(number.to_bytes(4, "big"))
        outbox.push()
        outbox.wait(number * 50)
    early = [at_ms for at_ms in outbox.wait(1_290) if at_ms % 200]
    assert early == [50, 100, 1_050, 1_100]


def test_nothing_queued_is_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    outbox.push()
    assert outbox.wait(500) == []
