"""Is this node's engine well? Whether it runs, what it serves, what it cannot do, and the one it replaces."""

from typing import Final

from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.check_rows import Mark, Row, fail_unless, make_row
from gossipmesh.agent.engine.engine_view import DrainingEngine, EngineView

_LOG: Final = "see engine.log in spec.stateDir"
_VERSION_LETTERS: Final = 12


def check_engine(parts: Parts) -> list[Row]:
    """Return the rows of this node's engine, and of the one before while it drains."""
    engine = parts.engine.view()
    why = "without its engine this node carries no traffic, neither its own nor its workloads'"
    detail = f"process {engine.pid}" + (f", {engine.name}" if engine.name else "")
    rows = [make_row("engine", fail_unless(engine.attached), detail, why, _LOG)]
    if engine.draining is not None:
        rows.append(_draining_row(engine.draining))
    if engine.lacks:
        rows.append(_older_row(engine))
    rows += [_unenforced_row(engine, name, lacked) for name, lacked in parts.feed.unenforced]
    detail = f"runs snapshot {_short(engine.acked_version)}"
    if engine.refused_version is not None:
        detail += f", refused {_short(engine.refused_version)}: {engine.refused_reason}"
    current = engine.acked_version is not None and engine.acked_version == engine.wanted_version
    why = "traffic goes by older routes, endpoints and rules than the mesh's"
    rows.append(make_row("snapshot", fail_unless(current), detail, why, _LOG))
    detail = "answers" if engine.answering else "does not answer"
    why = "no other node can call the workloads of this one"
    rows.append(make_row("mesh port", fail_unless(engine.answering), f"the mesh port {detail}", why, _LOG))
    if engine.full:
        detail = f"the engine has no place for more connections: {', '.join(engine.full)}"
        hint = "see who holds them with `ss -tnpe`; nothing that is under way was ended"
        why = "newcomers get 503 UO, or are closed at once"
        rows.append(make_row("places", Mark.FAIL, detail, why, hint, full=list(engine.full)))
    why = "applications that use that port reach something else, or nothing"
    rows += [
        make_row("upstream port", Mark.FAIL, problem, why, "free the port")
        for problem in parts.engine_port_problems()
    ]
    return rows


def _draining_row(draining: DrainingEngine) -> Row:
    """Say what the engine before still does; it is no fault, unless it goes by older rules."""
    detail = (
        f"process {draining.pid}, {draining.name}, was replaced and finishes what it has: "
        f"{draining.open_count} connections, {draining.left_s} s more at most; {draining.cut_count} were cut"
    )
    refused = draining.refused_version is not None
    if refused:
        detail += f"; it refused snapshot {_short(draining.refused_version)}"
    why = "what it has open goes by older rules until it ends"
    hint = f"wait, or `kill -9 {draining.pid}` to cut what it has"
    mark = Mark.WARN if refused else Mark.OK
    return make_row("engine before", mark, detail, why, hint, pid=draining.pid, cut=draining.cut_count)


def _older_row(engine: EngineView) -> Row:
    detail = f"{engine.name} is of another build, and cannot do: {', '.join(engine.lacks)}"
    why = "policy that needs what it lacks is refused, and what such policy protects stays closed"
    hint = "`gossipmesh engine replace` starts the engine of this build; nothing that is open is cut"
    return make_row("engine build", Mark.WARN, detail, why, hint, lacks=list(engine.lacks))


def _unenforced_row(engine: EngineView, name: str, lacked: list[str]) -> Row:
    detail = f"{name} needs {', '.join(lacked)}, which {engine.name or 'the engine'} cannot do"
    why = "policy in force is not enforced here: what it protects is closed, or goes by what held before it"
    hint = "`gossipmesh engine replace` starts the engine that spec.engine names; use one of this build"
    return make_row("engine policy", Mark.FAIL, detail, why, hint, document=name, lacks=lacked)


def _short(version: str | None) -> str:
    return (version or "none")[:_VERSION_LETTERS]
