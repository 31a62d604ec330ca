"""Whether another agent runs under our very keys, and which of the two goes on.

A state folder was copied, or a machine cloned: then two agents are one node, and each overrules what the
other signs. A rival is such an agent, and the two ask each other. Ends at the answer: who is told is the
router's.
Rules:
1. Whoever starts at another place than its kept record names asks there first, and says nothing to anybody
   until it was answered or need not wait any longer. Whoever starts where it was asks nobody.
2. A state of ours from another place, newer than ours, is asked about there before we sign above it.
3. Only a signature of our own key over what we drew just now shows that a rival lives, and only such a one
   ends us: whoever lacks the key can at most keep the two from hearing each other.
4. One of the two decides, whose run has the greater id, once for each run: whoever has been the node for
   longer goes on. It tells the other, who asked; so never both end, and never both are told to go on.
5. A place that does not answer holds an earlier run of ours, or is out of reach.
Paper: none; SWIM knows no two processes of one name.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import short_id_of
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.sessions.facts import Outlived, Unrivalled
from gossipmesh.gossip.sessions.handshake import Handshake, proof_bytes
from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import Cookie, Header, PacketType, Rival, Ruling, encode_header
from gossipmesh.wire.versions import WIRE_MAX

_NONCE_BYTES: Final = 16
_AGAIN_NS: Final = 200 * MILLISECOND_NS  # as a hello's first wait
_SILENT_NS: Final = 1_500 * MILLISECOND_NS  # four hellos: a loss of 5 % takes them all once in ten thousand
_ANSWERED_NS: Final = 3 * SECOND_NS  # for the rest, where somebody who says to be us gave us a cookie
_ROLE_RIVAL: Final = b"rival"
_ROLE_RULING: Final = b"ruling"


@kept.value("rival question")
class _Question:
    """What we ask at a place; `epoch` is the greatest of the states we met from there, 0 for none."""

    __slots__ = ("address", "asked_at", "cookie", "ends_at", "epoch", "nonce", "run")

    def __init__(self, address: Address, nonce: bytes, now: int) -> None:
        self.address = address
        self.nonce = nonce
        self.epoch = 0
        self.run = 0
        self.cookie = b""
        self.asked_at = now
        self.ends_at = now + _SILENT_NS


@kept.part("rivals")
class Rivals:
    """Both sides of the question; `is_asking` while we have not said to anybody that we are the node."""

    def __init__(self, ctx: Context, catalog: Catalog, own: OwnRecords, handshake: Handshake) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._own = own
        self._handshake = handshake
        self._own_short = short_id_of(own.node_id)
        self.is_asking = False
        self.seeds: tuple[Address, ...] = ()
        self._held_since = -1
        self._questions: dict[Address, _Question] = {}
        self._rulings: dict[int, bool] = {}

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for; `start`, set here too, is the node's."""
        return {"rival": self._again, "contested": self._contested}

    def may_start(self, seeds: tuple[Address, ...]) -> bool:
        """Tell whether we may say at once that we are the node; else the timer `start` is set once we may."""
        self.seeds = seeds
        own = self._catalog.get(self._own.node_id)
        before = None if own is None else own.state
        here = self._own.state.gossip_addresses
        if before is None or any(address in here for address in before.gossip_addresses):
            return True
        self.is_asking = True
        for address in before.gossip_addresses:
            self._ask(address)
        return False

    def started(self) -> None:
        """Note that from now on we are the node."""
        self.is_asking = False
        self._held_since = self._ctx.now

    def _ask(self, address: Address) -> _Question | None:
        """Ask at a place, unless that is under way; None: as many questions as may be are."""
        question = self._questions.get(address)
        if question is None and len(self._questions) < limits.RIVAL_QUESTIONS_MAX:
            question = _Question(address, self._ctx.fresh(_NONCE_BYTES), self._ctx.now)
            self._questions[address] = question
            self._handshake.start_anew(address)
            self._ctx.timers.set(("rival", address), self._ctx.now + _AGAIN_NS)
        return question

    def _contested(self) -> Unrivalled | None:
        """Ask where a newer state of ours came from (rule 2)."""
        state, self._own.contested = self._own.contested, None
        assert state is not None
        if self._rulings.get(state.run_id) is False:
            return Unrivalled(state.gossip_addresses[0], state.epoch, was_told=True)
        asked = [question for address in state.gossip_addresses if (question := self._ask(address))]
        for question in asked:
            question.epoch = max(question.epoch, state.epoch)
        return None if asked else Unrivalled(state.gossip_addresses[0], state.epoch)

    def receive_cookie(self, header: Header, cookie: Cookie) -> Unrivalled | None:
        """Learn from the answer to a hello of ours whether a rival may be there."""
        address = self._handshake.asked_at(header.counter)
        if address is None:
            return None
        if header.sender != self._own_short or header.run == self._ctx.run_id:
            question = self._questions.get(address)
            return None if question is None else self._close([question])
        question = self._ask(address)
        if question is not None and question.run != header.run:
            question.run, question.cookie = header.run, cookie.cookie
            question.ends_at = question.asked_at + _ANSWERED_NS
            self._send(question)
        return None

    def _again(self, address: Address) -> Unrivalled | None:
        question = self._questions[address]
        if self._ctx.now >= question.ends_at:
            return self._close([question])
        if question.cookie:
            self._send(question)
        self._ctx.timers.set(("rival", address), self._ctx.now + _AGAIN_NS)
        return None

    def _send(self, question: _Question) -> None:
        held_ms, epoch = self._held_ms(), self._told_epoch()
        fresh = question.cookie + question.nonce + _numbers(held_ms, epoch)
        signed = self._sign(_ROLE_RIVAL, question.run, fresh)
        rival = Rival(question.cookie, question.run, question.nonce, held_ms, epoch, signed)
        self._tell(question.address, PacketType.RIVAL, encode(rival))

    def receive_rival_untrusted(
        self, header: Header, rival: Rival, sender: Address
    ) -> Outlived | Unrivalled | None:
        """Decide which of the two goes on, or ask for that decision where it is the other's.

        Raises:
            MalformedInput: it does not prove our key, its run or its address. Remote's fault.
                State unchanged.
        """
        if rival.peer_run != self._ctx.run_id or not self._handshake.holds_cookie(
            rival.cookie, header.run, sender
        ):
            raise Untrusted("a rival that does not prove its address")
        fresh = rival.cookie + rival.nonce + _numbers(rival.held_ms, rival.epoch)
        self._check_untrusted(header, rival.proof, _ROLE_RIVAL, fresh)
        if header.run > self._ctx.run_id:
            self._ask(sender)
            return None
        was_ruled = header.run in self._rulings
        if not was_ruled:
            self._keep_ruling(header.run, goes_on=rival.held_ms > self._held_ms())
        goes_on, epoch = self._rulings[header.run], self._told_epoch()
        signed = self._sign(_ROLE_RULING, header.run, rival.nonce + _numbers(goes_on, epoch))
        self._tell(sender, PacketType.RULING, encode(Ruling(rival.nonce, goes_on, epoch, signed)))
        if goes_on:
            return self._outlived(sender)
        return self._outlive(header.run, sender, 0 if was_ruled else rival.epoch)

    def receive_ruling_untrusted(self, header: Header, ruling: Ruling) -> Outlived | Unrivalled | None:
        """Take the decision of a rival that we asked.

        Raises:
            MalformedInput: not the answer to a question of ours, or not signed by our key. Remote's fault.
                State unchanged.
        """
        asked = [question for question in self._questions.values() if question.nonce == ruling.nonce]
        if not asked or asked[0].run != header.run or header.run < self._ctx.run_id:
            raise Untrusted("a ruling that was not asked for")
        fresh = ruling.nonce + _numbers(ruling.goes_on, ruling.epoch)
        self._check_untrusted(header, ruling.proof, _ROLE_RULING, fresh)
        if not ruling.goes_on:
            return self._outlived(asked[0].address)
        self._keep_ruling(header.run, goes_on=False)
        return self._outlive(header.run, asked[0].address, ruling.epoch)

    def _check_untrusted(self, header: Header, signature: bytes, role: bytes, fresh: bytes) -> None:
        if header.sender != self._own_short or header.run == self._ctx.run_id:
            raise Untrusted("no rival: another node, or ourselves")
        proof = self._proof(role, header.run, self._ctx.run_id, fresh)
        self._ctx.statistics.signature_checks += 1
        if not self._ctx.verifier.verify(self._own.signing_key, proof, signature):
            raise Untrusted("a rival that does not prove our key")

    def _keep_ruling(self, run: int, *, goes_on: bool) -> None:
        if len(self._rulings) >= limits.RIVAL_RULINGS_MAX:
            del self._rulings[next(iter(self._rulings))]
        self._rulings[run] = goes_on

    def _outlived(self, address: Address) -> Outlived:
        """End all questions: we say nothing more than that it is the other who goes on."""
        for asked in self._questions:
            self._ctx.timers.cancel(("rival", asked))
        self._questions.clear()
        return Outlived(address)

    def _outlive(self, run: int, address: Address, epoch: int) -> Unrivalled | None:
        """Go on where a rival was told to end, whom others followed up to `epoch` (0: nobody did)."""
        settled = [one for one in self._questions.values() if one.run == run or one.address == address]
        fact = self._close(settled, was_told=True)
        if epoch and not self.is_asking:
            epoch = max(epoch, self._own.epoch, 0 if fact is None else fact.epoch)
            fact = Unrivalled(address, epoch, was_told=True)
        return fact

    def _close(self, questions: list[_Question], *, was_told: bool = False) -> Unrivalled | None:
        """End questions: there is no rival at these places, or it was told that it is not the node."""
        for question in questions:
            del self._questions[question.address]
            self._ctx.timers.cancel(("rival", question.address))
            if was_told:
                self._handshake.stop(question.address)
        if self.is_asking and not self._questions:
            self._ctx.timers.set(("start", None), self._ctx.now)
        met = [question for question in questions if question.epoch]
        if not met:
            return None
        last = max(met, key=lambda question: question.epoch)
        return Unrivalled(last.address, last.epoch, was_told)

    def _held_ms(self) -> int:
        return 0 if self._held_since < 0 else 1 + (self._ctx.now - self._held_since) // MILLISECOND_NS

    def _told_epoch(self) -> int:
        return 0 if self._held_since < 0 else self._own.epoch

    def _sign(self, role: bytes, peer_run: int, fresh: bytes) -> bytes:
        return self._ctx.keys.signing.sign(self._proof(role, self._ctx.run_id, peer_run, fresh))

    def _proof(self, role: bytes, run: int, peer_run: int, fresh: bytes) -> bytes:
        return proof_bytes(self._ctx.group_tag, role, self._own.node_id, run, peer_run, fresh)

    def _tell(self, address: Address, kind: PacketType, body: bytes) -> None:
        # What answers what stands in the body, so the counter has nothing to say.
        header = Header(WIRE_MAX, kind, self._ctx.group_tag, self._own_short, self._ctx.run_id, 0)
        self._ctx.send(address, encode_header(header) + body)


def _numbers(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big") for number in numbers)
