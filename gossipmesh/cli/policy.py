"""`gossipmesh policy`: validate, sign, publish and inspect policy.

The signer's key is read here and stays here: agents only ever see what it signed.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.main import SuggestingGroup, did_you_mean
from gossipmesh.cli.output import Column, output_option, print_rows, print_value, printable, tell
from gossipmesh.cli.policy_sets import load_signer, sign
from gossipmesh.cli.push_plan import GONE, highest, read_members
from gossipmesh.cli.wait_option import WaitingCommand, pause, seconds_of, wait_options
from gossipmesh.model.errors import Interrupted, MalformedInput, OperatorError, UsageError

if TYPE_CHECKING:
    from gossipmesh.cli.policy_files import PolicyFiles
    from gossipmesh.cli.push_flow import Edit, Published, Push, PushSettings
    from gossipmesh.trust.keys import SigningKey
    from gossipmesh.trust.manifest import Change, SignedSet
    from gossipmesh.wire.problems import Problem

EXIT_FAILED: Final = 1
EXIT_WOULD_CHANGE: Final = 3
KINDS: Final = ("HTTPRoute", "AccessPolicy", "Subset", "MeshPolicy")
DEFAULT_SCOPE: Final = "mesh"

F = TypeVar("F", bound=Callable[..., Any])
STATUS_COLUMNS: Final = (
    Column("MEMBER", "member"),
    Column("STATUS", "status", rank=3),
    Column("SCOPE", "scope", rank=4),
    Column("VERSION", "version", right=True),
    Column("HASH", lambda row: str(row["hash"])[:8], rank=2),
    Column("STATE", "state"),
    Column("REASON", "refused_reason", rank=1, prose=True),
)


@click.group(cls=SuggestingGroup)
def policy() -> None:
    """Sign, publish and inspect policy."""


policy.add_command(sign)


def _scope_option(command: F) -> F:
    option = click.option("--scope", default=DEFAULT_SCOPE, show_default=True, help="Which policy scope.")
    return option(command)


def _publish_options(command: F) -> F:
    """Add what push and delete share."""
    options = (
        click.option(
            "--signer",
            "signers",
            multiple=True,
            type=click.Path(dir_okay=False),
            metavar="KEYFILE",
            help="The signer's private key, a 0600 file; repeat it where Trust asks for several.",
        ),
        click.option(
            "--accept-signer",
            "accepted",
            multiple=True,
            metavar="HEX",
            help="Public key of another signer whose set may be built on.",
        ),
        wait_options("runs it"),
        click.option("--dry-run", is_flag=True, help="Show what would change; exit 3 if anything would."),
        click.option("--rebase", is_flag=True, help="Build on the newest set when another push came first."),
    )
    for option in reversed(options):
        command = option(command)
    return _scope_option(output_option(socket_option(command)))


@policy.command(cls=WaitingCommand)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE_OR_DIR",
    help="Policy files, or directories of them; - for stdin.",
)
@click.option(
    "--set", "set_path", type=click.Path(path_type=Path), help="Publish this set, signed by others, instead."
)
@click.option(
    "--out", "out_path", type=click.Path(path_type=Path), help="Sign into this file and publish nothing."
)
@click.option(
    "--allow-method", "methods", multiple=True, metavar="NAME", help="A method of your own in these files."
)
@click.option("--prune", is_flag=True, help="Remove what is in the scope but not in these files.")
@_publish_options
def push(files: tuple[str, ...], prune: bool, methods: tuple[str, ...], **options: Any) -> int:
    """Validate, sign and publish the documents in files, or a set that several signers signed apart."""
    if bool(files) is (options["set_path"] is not None):
        raise UsageError("-f FILE_OR_DIR or --set SET is needed, and not both")
    if options["set_path"] is not None:
        return _push_set(options)
    return _push_files(files, prune, methods, options)


def _push_set(options: Mapping[str, Any]) -> int:
    """Publish the set in a file as it is."""
    from gossipmesh.cli.policy_sets import read_set

    if options["signers"] or options["rebase"] or options["out_path"] or options["dry_run"]:
        raise UsageError("--set publishes a set as it is: look at it and sign it with `policy sign`")
    signed = read_set(options["set_path"])
    flow, settings, _ = _flow({**options, "scope": signed.manifest.scope}, [])
    return _tell_published(flow.publish_signed(signed), settings, options)


def _push_files(
    files: tuple[str, ...], prune: bool, methods: tuple[str, ...], options: Mapping[str, Any]
) -> int:
    from gossipmesh.cli import policy_files
    from gossipmesh.cli.policy_warnings import parents_of
    from gossipmesh.model.policy import HTTPRoute
    from gossipmesh.trust.manifest import BaseSet, encode_documents, upsert

    loaded = policy_files.load_files(policy_files.find_files(files))
    unmatchable = _unmatchable(loaded, methods, options)
    if loaded.problems:
        _refuse_problems([*loaded.problems, *unmatchable, *_reference_problems(loaded, prune, options)])
    _refuse_problems(unmatchable)
    if not loaded.documents:
        raise OperatorError("the files hold no document: nothing was signed or sent")
    given = encode_documents(item.document for item in loaded.documents)
    routes = [item.document for item in loaded.documents if isinstance(item.document, HTTPRoute)]
    touched = {service for route in routes for service in parents_of(route)}
    told: set[str] = set()

    def edit(base: BaseSet) -> dict[str, bytes]:
        bodies = upsert(base, given, prune=prune)
        _refuse_problems(policy_files.reference_problems(loaded.documents, bodies))
        _refuse_orphans(policy_files.orphaned_references(bodies, given))
        _tell_fallthroughs(bodies, {*touched, *_parents_lost(base.bodies, bodies)}, told)
        return bodies

    warnings = policy_files.shadowed_rules(loaded.documents)
    if options["dry_run"]:
        from gossipmesh.cli.policy_warnings import catalog_warnings

        warnings += catalog_warnings(loaded.documents, AdminClient(options["socket_path"]))
    for warning in warnings:
        tell(f"warning: {warning}")
    return _run(edit, options)


@policy.command(cls=WaitingCommand)
@click.argument("kind")
@click.argument("name", metavar="NAMESPACE/NAME")
@_publish_options
def delete(kind: str, name: str, **options: Any) -> int:
    """Sign and publish the scope without one document."""
    from gossipmesh.cli.policy_files import orphaned_references
    from gossipmesh.trust.manifest import BaseSet, without

    wanted = _full_name(kind, name)
    told: set[str] = set()

    def edit(base: BaseSet) -> dict[str, bytes]:
        if wanted not in base.bodies:
            raise OperatorError(_unknown_name(wanted, base.bodies, options["scope"]))
        bodies = without(base, [wanted])
        _refuse_orphans(orphaned_references(bodies, ()))
        _tell_fallthroughs(bodies, _parents_lost(base.bodies, bodies), told)
        return bodies

    return _run(edit, options)


@policy.command()
@click.argument("kind")
@click.argument("name", metavar="NAMESPACE/NAME")
@_scope_option
@click.option("-o", "--output", type=click.Choice(("yaml", "json")), default="yaml", show_default=True)
@socket_option
def get(kind: str, name: str, scope: str, output: str, socket_path: str | None) -> None:
    """Print one document as it is in force on this node."""
    wanted = _full_name(kind, name)
    bodies = _bodies_in_force(socket_path, scope)
    if wanted not in bodies:
        raise OperatorError(_unknown_name(wanted, bodies, scope))
    document = json.loads(bodies[wanted])
    first = {key: document[key] for key in ("apiVersion", "kind") if key in document}
    print_value({**first, **document}, output)


@policy.command("list")
@_scope_option
@output_option
@socket_option
def list_(scope: str, output: str, socket_path: str | None) -> None:
    """List the documents in force on this node."""
    columns = (
        Column("KIND", "kind"),
        Column("NAMESPACE", "namespace"),
        Column("NAME", lambda row: str(row["name"]).rpartition("/")[2]),
        Column("SINCE", "version_since", right=True, rank=1),
        Column("BYTES", "size", right=True, rank=2),
        Column("SHA256", "sha256", wide=True),
    )
    rows = AdminClient(socket_path).get_json("/v1/policy/list", scope=scope)
    print_rows(rows, columns, output, empty=f"no policy is in force in the scope {scope!r}")


@policy.command()
@output_option
@socket_option
def status(output: str, socket_path: str | None) -> None:
    """Show which version each member runs, and who refused one and why."""
    answer = AdminClient(socket_path).get_json("/v1/policy/status")
    rows = status_rows(answer["members"])
    print_rows(rows, STATUS_COLUMNS, output, empty="no member is known")
    for alarm in answer.get("alarms") or ():
        tell(f"warning: {printable(str(alarm['text']))}")


def status_rows(members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per member and scope: what it runs, and how that stands to the newest.

    `state` is current, behind, none (no policy), or refused (a newer one, with the reason).
    """
    scopes = sorted({str(p["scope"]) for row in members for p in row.get("policies") or ()})
    rows = []
    for scope in scopes or [DEFAULT_SCOPE]:
        policies = read_members(members, scope)
        newest = highest(policies)
        for member in policies:
            if member.status == GONE:
                continue
            refused = member.refused > member.runs
            state = "current" if member.runs == newest else "behind"
            if not member.runs[0]:
                state = "none"
            rows.append(
                {
                    "member": member.name,
                    "status": member.status,
                    "scope": scope,
                    "version": member.runs[0],
                    "hash": member.runs[1],
                    "state": "refused" if refused else state,
                    "refused_version": member.refused[0],
                    "refused_hash": member.refused[1],
                    "refused_reason": member.refused_reason,
                }
            )
    return rows


def _flow(
    options: Mapping[str, Any], paths: "Sequence[str | None]"
) -> "tuple[Push, PushSettings, list[SigningKey]]":
    """Return a push as the options ask for it, and the keys in these files."""
    from gossipmesh.cli.push_flow import Push, PushSettings
    from gossipmesh.net import clock

    settings = PushSettings(
        scope=options["scope"],
        wait=options["wait"],
        timeout_s=seconds_of(options["timeout"]),
        rebase=options["rebase"],
        accepted_signers=tuple(_public_key(text) for text in options["accepted"]),
    )
    keys = [load_signer(path) for path in paths]
    settings = replace(settings, further_keys=tuple(keys[1:]))
    flow = Push(
        AdminClient(options["socket_path"]),
        settings,
        clock=lambda: clock.monotonic() / 1e9,
        pause=pause,
        tell=tell,
    )
    return flow, settings, keys


def _run(edit: "Edit", options: Mapping[str, Any]) -> int:
    """Dry-run, sign into a file or publish; print what happened and return the exit code."""
    from gossipmesh.net import clock

    looking_only = options["dry_run"] and not options["signers"]
    flow, settings, keys = _flow(options, () if looking_only else options["signers"] or (None,))
    if options["dry_run"]:
        public_keys = [*(key.public for key in keys), *settings.accepted_signers] if keys else None
        prepared = flow.prepare(edit, public_keys)
        _print_changes(prepared.changes, prepared.base.version, options["output"])
        return EXIT_WOULD_CHANGE if prepared.changes else 0
    if options.get("out_path") is not None:
        return _write_out(flow.draft(edit, keys[0], created=clock.wall_seconds()), options)
    return _tell_published(flow.publish(edit, keys[0], created=clock.wall_seconds()), settings, options)


def _write_out(signed: "SignedSet | None", options: Mapping[str, Any]) -> int:
    """Keep a signed set in a file, for others to sign."""
    from gossipmesh.cli.policy_sets import write_set

    if signed is None:
        _print_result({"scope": options["scope"], "published": False, "changes": []}, options["output"])
        return 0
    write_set(options["out_path"], signed)
    told = {"scope": signed.manifest.scope, "version": signed.manifest.version, "published": False}
    if options["output"] in ("json", "yaml"):
        print_value({**told, "hash": signed.manifest_hash.hex()}, options["output"])
    else:
        click.echo(
            f"{options['out_path']} holds {told['scope']} version {told['version']}; nothing was published"
        )
    return 0


def _tell_published(
    published: "Published | None", settings: "PushSettings", options: Mapping[str, Any]
) -> int:
    """Print what became of a push and return the exit code; None: there was nothing to change."""
    from gossipmesh.cli.push_flow import absentees, verdict

    if published is None:
        _print_result({"scope": settings.scope, "published": False, "changes": []}, options["output"])
        return 0
    failure, left_out = verdict(published, settings), absentees(published)
    _print_result(_result(published, settings, failure), options["output"])
    if left_out is not None and settings.wait:
        tell(f"warning: {left_out}")
    if failure is not None:
        tell(f"gossipmesh: {failure}")
        return EXIT_FAILED
    return 0


def _result(published: "Published", settings: "PushSettings", failure: str | None) -> dict[str, Any]:
    version, manifest_hash = published.target
    outcome = published.outcome
    return {
        "scope": settings.scope,
        "published": True,
        "version": version,
        "hash": manifest_hash,
        "changes": [{"name": change.name, "action": change.action} for change in published.changes],
        "outcome": outcome.state,
        "reached": outcome.reached,
        "refused": [{"member": member, "reason": reason} for member, reason in outcome.refused],
        "missing": [{"member": member, "reason": reason} for member, reason in outcome.missing],
        "absent": [{"member": member, "reason": reason} for member, reason in outcome.absent],
        "heir": published.heir and list(published.heir),
        "superseded_by": outcome.superseded_by and list(outcome.superseded_by),
        "seconds": round(published.seconds, 3),
        "waited": settings.wait is not None,
        "failure": failure,
    }


def _print_result(result: dict[str, Any], output: str) -> None:
    if output in ("json", "yaml"):
        print_value(result, output)
    elif not result["published"]:
        click.echo(f"nothing to change: {result['scope']} is as the files say")
    else:
        counts = dict.fromkeys(("added", "changed", "removed"), 0)
        for change in result["changes"]:
            counts[change["action"]] += 1
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        click.echo(f"published {result['scope']} version {result['version']} ({result['hash'][:8]}): {told}")
        if result["outcome"] == "reached" and result["waited"]:
            members = f"{len(result['reached'])} members{' that are alive' if result['absent'] else ''}"
            what = f"version {result['heir'][0]}, built on it" if result["heir"] else "it"
            click.echo(f"all {members} run {what}, after {result['seconds']:.2f} s")


def _print_changes(changed: "Iterable[Change]", base_version: int, output: str) -> None:
    rows = [{"name": change.name, "action": change.action} for change in changed]
    if output in ("json", "yaml"):
        print_value({"base": base_version, "changes": rows}, output)
        return
    marks = {"added": "+", "changed": "~", "removed": "-"}
    for row in rows:
        click.echo(f"{marks[row['action']]} {row['name']} would be {row['action']}")
    if not rows:
        click.echo("nothing would change")


def _reference_problems(loaded: "PolicyFiles", prune: bool, options: Mapping[str, Any]) -> "list[Problem]":
    """Return missing references of files that are refused anyway, so that they show in the same go.

    Only the names in force matter here, so the set's signature is not asked for. Without an agent, whether
    a reference to the outside of the files holds cannot be told, and is not claimed.
    """
    from gossipmesh.cli.policy_files import reference_problems
    from gossipmesh.model.policy import document_name

    names = [document_name(item.document) for item in loaded.documents]
    try:
        in_force = _bodies_in_force(options["socket_path"], options["scope"])
    except OperatorError:
        return []
    return reference_problems(loaded.documents, names if prune else [*names, *in_force])


def _unmatchable(
    loaded: "PolicyFiles", methods: tuple[str, ...], options: Mapping[str, Any]
) -> "list[Problem]":
    """Return what can never match; without an agent the trust domain is not known, and not asked about."""
    from gossipmesh.cli.policy_lint import unmatchable

    try:
        status = AdminClient(options["socket_path"]).get_json("/v1/status")
        trust_domain = str(status["trust_domain"])
    except (OperatorError, KeyError):
        trust_domain = None  # a push meets the same agent again, and says so then
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was sent, so nothing is published") from None
    return [problem for item in loaded.documents for problem in unmatchable(item, trust_domain, methods)]


def _tell_fallthroughs(bodies: Mapping[str, bytes], services: "Iterable[str]", told: set[str]) -> None:
    """Warn of requests that no rule takes once the set is `bodies`; `told` are the warnings given already."""
    from gossipmesh.cli.policy_warnings import FALLS_THROUGH, fallthroughs

    for sentence in fallthroughs(bodies, services).values():
        if sentence not in told:
            told.add(sentence)
            tell(f"warning: {sentence} [{FALLS_THROUGH}]")


def _parents_lost(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> set[str]:
    """Return the services of the routes that go or change between two sets."""
    import msgspec

    from gossipmesh.cli.policy_warnings import parents_of
    from gossipmesh.model.policy import HTTPRoute

    gone = [
        body for name, body in before.items() if name.startswith("HTTPRoute/") and after.get(name) != body
    ]
    return {service for body in gone for service in parents_of(msgspec.json.decode(body, type=HTTPRoute))}


def _bodies_in_force(socket_path: str | None, scope: str) -> Mapping[str, bytes]:
    """Return name -> body as this agent runs them: to look at, never to build on.

    Raises:
        OperatorError: no agent, or what it sent cannot be read.
    """
    from gossipmesh.trust.documents import decode_policy_set_untrusted
    from gossipmesh.trust.keys import Verifier
    from gossipmesh.trust.manifest import open_base_untrusted

    data = AdminClient(socket_path).get_bytes("/v1/policy/set", scope=scope)
    if data is None:
        return {}
    try:
        return open_base_untrusted(decode_policy_set_untrusted(data), scope, None, Verifier()).bodies
    except MalformedInput as error:
        raise OperatorError(f"cannot read the set this agent runs: {error}") from error


def _refuse_problems(problems: "Sequence[Problem]") -> None:
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column, problem.path))
    for problem in ordered:
        tell(str(problem))
    files = sorted({problem.file for problem in ordered})
    count = f"{len(ordered)} problem{'s' if len(ordered) > 1 else ''}"
    raise OperatorError(f"{count} in {', '.join(files)}: nothing was signed or sent; see docs/POLICY.md")


def _refuse_orphans(sentences: Sequence[str]) -> None:
    if sentences:
        raise OperatorError(
            f"{'; '.join(sentences)}: nothing was signed or sent, change or delete those first"
        )


def _full_name(kind: str, name: str) -> str:
    found = next((known for known in KINDS if known.lower() == kind.lower()), None)
    if found is None:
        raise UsageError(f"{kind!r} is not a kind of policy: {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
    namespace, slash, short = name.rpartition("/")
    return f"{found}/{namespace if slash else 'default'}/{short}"


def _unknown_name(wanted: str, names: Iterable[str], scope: str) -> str:
    there = sorted(names)
    told = f"there are {', '.join(there[:10])}" if there else "there is no policy in force"
    return f"{wanted} is not in the scope {scope!r}: {told}.{did_you_mean(wanted, there)}"


def _public_key(text: str) -> bytes:
    from gossipmesh.trust.keys import is_public_key

    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if not is_public_key(key):
        raise UsageError(f"--accept-signer: {text[:80]!r} is not a public key of 64 hex digits")
    return key
