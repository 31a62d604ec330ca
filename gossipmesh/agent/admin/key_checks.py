"""Is this node's identity well? How long it lasts, whether the authority answers, and how its keys turn."""

from datetime import UTC, datetime
from typing import Final

from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.check_rows import Mark, Row, make_row, warn_unless
from gossipmesh.agent.identity.identity_keeper import answered_at, horizon, leaves_end
from gossipmesh.model.durations import age_text
from gossipmesh.model.instant import DAY_S, HOUR_S, SECOND_NS
from gossipmesh.net.clock import monotonic, wall_seconds
from gossipmesh.wire.versions import FOREIGN_KEYS

_HORIZON_S_MIN: Final = 4 * HOUR_S
_ANSWERED_S_MAX: Final = 2 * DAY_S  # three renewals that failed, and six weeks are left to mend it
_UNPROVEN: Final = "without a credential or a key of its own it is refused by every other node"


def check_identity(parts: Parts) -> list[Row]:
    """Return the rows of this node's identity and of its keys."""
    return [
        *_check_credential(parts),
        *_check_certificates(parts),
        *_check_keys(parts),
        *_check_theft(parts),
        *_check_roll(parts),
    ]


def _check_credential(parts: Parts) -> list[Row]:
    ends = horizon(parts.identity.identity)
    left_s = ends - wall_seconds()
    unanswered_s = wall_seconds() - answered_at(parts.identity.identity)
    until = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    detail = f"its credential ends {until}, in {age_text(left_s)}"
    failure = parts.identity.failure
    if unanswered_s > _ANSWERED_S_MAX:
        detail += f"; the authority has not answered for {age_text(unanswered_s)}"
    if failure is not None:
        detail += f"; the last renewal failed: {failure}"
    well = failure is None and unanswered_s <= _ANSWERED_S_MAX
    mark = warn_unless(well) if left_s > _HORIZON_S_MIN else Mark.FAIL
    why = "keys turn without the authority, but past its credential's end a node is no member any more"
    hint = "start the authority: `gossipmesh authority serve`"
    evidence = {"ends": ends, "left_s": left_s, "unanswered_s": unanswered_s}
    rows = [make_row("identity", mark, detail, why, hint, **evidence)]
    missing = parts.identity.missing_services()
    if missing:
        disallowed = parts.identity.disallowed_services()
        detail = f"no key in use yet for {', '.join(missing)}"
        if disallowed:
            detail += f"; its credential does not allow {', '.join(disallowed)}"
        hint = "see the row `keys`; a service that the credential does not allow needs a token with --service"
        told = {"missing": missing, "disallowed": disallowed}
        rows.append(make_row("service identities", Mark.FAIL, detail, _UNPROVEN, hint, **told))
    return rows


def _check_certificates(parts: Parts) -> list[Row]:
    """What the authority issued is for those outside, and for builds that judge by nothing else."""
    left_s = leaves_end(parts.identity.identity) - wall_seconds()
    detail = "none is valid" if left_s <= 0 else f"the first one ends in {age_text(left_s)}"
    why = "whoever verifies by certificates alone (builds before 0.3, Envoy, curl) refuses this node"
    hint = "start the authority: `gossipmesh authority serve`"
    return [make_row("certificates", warn_unless(left_s > 0), detail, why, hint, left_s=left_s)]


def _check_keys(parts: Parts) -> list[Row]:
    keys, now = parts.identity.keys, monotonic()
    turning = keys.turning
    turn_s = (turning.turn_at - now) // SECOND_NS
    waits = turning.waits_for(now)
    detail = f"{len(turning.holding.keys)} identities, the next turn in {age_text(turn_s)}"
    if not turning.is_heard:
        detail += "; too few members hold the newest key set"
    if waits:
        detail += f"; the turn waits: {waits}"
    if keys.failure is not None:
        detail += f"; {keys.failure}"
    able = parts.engine.takes_pins
    if not able:
        detail += "; the engine is of an older build, and judges peers by certificates alone"
    why = "a stolen key stays good until the next turn, and who is revoked is cut off by newer engines alone"
    hint = (
        "see engine.log and the agent's log; an engine of this build comes with `gossipmesh engine replace`"
    )
    mark = warn_unless(not waits and keys.failure is None and able)
    return [make_row("keys", mark, detail, why, hint, turn_s=turn_s, turns=keys.turns_count)]


def _check_theft(parts: Parts) -> list[Row]:
    if FOREIGN_KEYS not in parts.node.own_state.features:
        return []
    detail = "somebody published TLS keys in this node's name, signed with its own Ed25519 key"
    why = "whoever holds that key is this node to every other one"
    hint = "revoke this node and enrol it again; if an old copy of its state folder runs, end that one"
    return [make_row("foreign keys", Mark.FAIL, detail, why, hint)]


def _check_roll(parts: Parts) -> list[Row]:
    """Is the list here of who stays, now that a credential key was dropped?"""
    missing = parts.node.roll_missing_count
    if missing == 0:
        return []
    part = "the roll" if missing is None else f"{missing} pages of the roll"
    detail = (
        f"{part} that Trust names have not come yet" if missing else f"{part} that Trust names has not come"
    )
    why = "members that the dropped key signed stay as they are here, a thief's among them"
    hint = (
        "members are asked for it; see `heard by others`, and `gossipmesh check --all` for who lacks it too"
    )
    return [make_row("roll", Mark.WARN, detail, why, hint, missing=missing)]
