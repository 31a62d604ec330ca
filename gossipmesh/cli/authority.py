"""`gossipmesh authority` and `gossipmesh token`: where identities come from."""

import signal
import sys
from pathlib import Path
from typing import Any, Final

import click

from gossipmesh.cli.authority_backup import ask_mesh, backup, restore
from gossipmesh.cli.authority_move import move
from gossipmesh.cli.authority_options import directory_option
from gossipmesh.cli.authority_records import show_log
from gossipmesh.cli.authority_revoke import forget, revoke
from gossipmesh.cli.authority_rotate import rotate
from gossipmesh.cli.authority_thresholds import read_thresholds, threshold_options, thresholds_told
from gossipmesh.cli.authority_turn import TURNING
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.cli.passphrase import Passphrase, passphrase_options
from gossipmesh.model.errors import MalformedInput, OperatorError, UsageError

DEFAULT_BIND: Final = "0.0.0.0:8443"
_SWITCH_S: Final = 0.0005


@click.group(cls=SuggestingGroup)
def authority() -> None:
    """Create an authority, serve enrolments, and see what it did."""


for _command in (show_log, revoke, forget, rotate, move, backup, restore, ask_mesh):
    authority.add_command(_command)
for _command in TURNING:
    rotate.add_command(_command)


@click.group(cls=SuggestingGroup)
def token() -> None:
    """Create one-time join tokens."""


@authority.command()
@click.option("--trust-domain", required=True, metavar="NAME", help="Such as mesh.example.com; it stays.")
@directory_option
@click.option(
    "--root-key-out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put the X.509 root's private key here and not in the folder (a stick you take away).",
)
@click.option("--dev", is_flag=True, help="One document root key with threshold 1. Not for production.")
@click.option(
    "--signer",
    "signers",
    multiple=True,
    metavar="NAME:SCOPE",
    help="A policy signer; repeat for more. Default: policy:mesh.",
)
@click.option("--encrypt", is_flag=True, help="Lock the root's and the document root keys by a passphrase.")
@passphrase_options
@click.option(
    "--intermediate",
    "given",
    nargs=3,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="ROOT.PEM INTERMEDIATE.PEM KEY",
    help="Issue below a CA of your own: its certificate, the intermediate it signed, and that one's key.",
)
@threshold_options
def init(
    trust_domain: str,
    directory: Path,
    root_key_out: Path | None,
    dev: bool,
    signers: tuple[str, ...],
    encrypt: bool,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    given: tuple[Path, Path, Path] | None,
    **thresholds: Any,
) -> None:
    """Make the roots, the signer keys and the first Trust document."""
    from gossipmesh.control.given_intermediate import read_given
    from gossipmesh.control.roots import DEFAULT_SIGNERS, Plan, create_authority
    from gossipmesh.net.clock import wall_seconds
    from gossipmesh.net.entropy import random_bytes

    pairs = [(name, scope) for name, _, scope in (text.partition(":") for text in signers)]
    passphrase = Passphrase(passphrase_file, passphrase_fd)
    if not encrypt and (passphrase_file is not None or passphrase_fd is not None):
        raise UsageError("a passphrase is given and --encrypt is not; give both")
    if given is not None and root_key_out is not None:
        raise UsageError("--root-key-out is for a root made here; with --intermediate there is none")
    issuing = None if given is None else read_given(*given, trust_domain, wall_seconds())
    plan = Plan(
        trust_domain,
        directory,
        root_key_out,
        dev,
        pairs or DEFAULT_SIGNERS,
        passphrase.choose() if encrypt else None,
        issuing,
        **read_thresholds(**thresholds),
    )
    made = create_authority(plan, wall_seconds(), random_bytes)
    click.echo(f"authority for {trust_domain} in {directory} (instance {made.instance})")
    for name, scope in plan.signers:
        click.echo(f"policy signer for the scope {scope}: {directory / 'signers' / name}.key")
    for line in thresholds_told(made.trust):
        click.echo(line)
    if dev:
        click.echo("made with --dev: one key can change Trust; do not use this in production")
    else:
        keys = directory / "documents"
        root = "" if issuing else f"{root_key_out or directory / 'root.key'} and "
        click.echo(f"keep offline, each in a place of its own: {root}the keys in {keys}")
    click.echo(f"next: gossipmesh authority serve --dir {directory} --bind ADDRESS:PORT")


@authority.command()
@directory_option
@click.option(
    "--bind", default=DEFAULT_BIND, show_default=True, metavar="ADDRESS:PORT", help="Where to listen."
)
def serve(directory: Path, bind: str) -> None:
    """Enrol nodes and renew their certificates; nothing on a node waits for it."""
    import trio

    from gossipmesh.control.roots import load_authority
    from gossipmesh.control.server import AuthorityServer
    from gossipmesh.model.member import Address
    from gossipmesh.net.clock import wall_seconds
    from gossipmesh.net.entropy import random_bytes

    def report(line: str) -> None:
        click.echo(line, err=True)

    async def run(address: Address) -> None:
        loaded = load_authority(directory)
        server = AuthorityServer(loaded, clock=wall_seconds, entropy=random_bytes, report=report)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.run, address)
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break

    try:
        address = Address.parse(bind)
    except MalformedInput as error:
        raise UsageError(f"--bind: {error}") from None
    # A decision gives the interpreter up at each file it touches. With the usual 5 ms it waits that long each
    # time while a crowd of handshakes keeps the loop busy: 200 ms for fifty touches, and 20 ms with this.
    sys.setswitchinterval(_SWITCH_S)
    try:
        trio.run(run, address)
    except BaseExceptionGroup as group:
        mendable, other = group.split(OperatorError)
        if mendable is None or other is not None:
            raise
        raise _first(mendable) from None


@token.command()
@directory_option
@click.option(
    "--authority",
    "addresses",
    required=True,
    multiple=True,
    metavar="HOST:PORT",
    help="Where nodes reach it, an address or a name; repeat for more, they are tried in turn.",
)
@click.option("--node", required=True, metavar="NAME", help="The node's name; it becomes its identity.")
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="PATTERN",
    help="A service it may serve: shop/cart, 'shop/*' or '*/*'; repeat for more.",
)
@click.option(
    "--ttl", default="10m", show_default=True, metavar="DURATION", help="How long it can be redeemed."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The token file (0600); copy it to the node. Secrets are never printed.",
)
@click.option(
    "--format",
    "token_format",
    type=click.Choice(["1", "2"]),
    default="2",
    show_default=True,
    help="1 for an agent of 0.2: one address, no name.",
)
def create(
    directory: Path,
    addresses: tuple[str, ...],
    token_format: str,
    node: str,
    services: tuple[str, ...],
    ttl: str,
    out: Path,
) -> None:
    """Make a join token: one node, once, soon."""
    import msgspec

    from gossipmesh.control.issuing import Issuer
    from gossipmesh.control.ledger import Ledger
    from gossipmesh.control.roots import load_authority
    from gossipmesh.control.tokens import TokenOrder
    from gossipmesh.model.durations import parse_duration_untrusted
    from gossipmesh.model.host_port import is_host_port
    from gossipmesh.model.instant import SECOND_NS
    from gossipmesh.net.clock import wall_seconds
    from gossipmesh.net.entropy import random_bytes
    from gossipmesh.net.secret_files import SECRET_MODE, write_file

    try:
        ttl_s = parse_duration_untrusted(ttl) // SECOND_NS
    except MalformedInput as error:
        raise UsageError(f"--ttl: {error}") from None
    for address in addresses:
        if not is_host_port(address):
            raise UsageError(f"--authority: {address!r} is not HOST:PORT, such as authority.example.com:8443")
    first, *more = addresses
    order = TokenOrder(first, node, services, ttl_s, more, int(token_format))
    issuer = Issuer(load_authority(directory), Ledger(directory), random_bytes)
    made = issuer.create_token(order, wall_seconds())
    write_file(out, msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n", mode=SECRET_MODE)
    click.echo(f"token for {node} in {out}: redeem it once within {ttl}, at {', '.join(addresses)}")


def _first(group: BaseExceptionGroup[OperatorError]) -> OperatorError:
    """Return the first error of a group, however deep."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
