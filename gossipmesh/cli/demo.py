"""`gossipmesh demo`: a mesh of five real nodes on this machine, put through its paces."""

import contextlib
import json
import os
import signal
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gossipmesh.testing.demo import Step
    from gossipmesh.testing.mesh import Mesh


class PlainReporter:
    """One line when a step has ended, with its time and the figures that matter."""

    def __enter__(self) -> "PlainReporter":
        return self

    def __exit__(self, kind: Any, error: Any, trace: TracebackType | None) -> None:
        return

    def begin(self, name: str) -> None:
        """Say nothing: the line comes with the result."""

    def end(self, step: "Step") -> None:
        """Print the step's line."""
        click.echo(f"{'ok  ' if step.ok else 'FAIL'} {step.seconds:6.2f} s  {step.name}")
        for line in figures(step.evidence):
            click.echo(f"               {line}")

    def load(self, sent: int, failed: int) -> None:
        """Say nothing: the totals come at the end."""


class SilentReporter(PlainReporter):
    """Nothing but the result, for `--json`."""

    def end(self, step: "Step") -> None:
        """Say nothing."""


class LiveReporter:
    """A table that fills as the demo goes, for a terminal."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(refresh_per_second=4)
        self._steps: list[Step] = []
        self._current = ""
        self._requests = (0, 0)

    def __enter__(self) -> "LiveReporter":
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._current = ""
        self._draw()
        self._live.__exit__(kind, error, trace)

    def begin(self, name: str) -> None:
        """Show the step as running."""
        self._current = name
        self._draw()

    def end(self, step: "Step") -> None:
        """Show the step's result."""
        self._steps.append(step)
        self._current = ""
        self._draw()

    def load(self, sent: int, failed: int) -> None:
        """Show the counts of requests."""
        self._requests = (sent, failed)
        self._draw()

    def _draw(self) -> None:
        from rich.table import Table
        from rich.text import Text

        sent, failed = self._requests
        table = Table(box=None, pad_edge=False, caption=f"{sent} requests sent, {failed} failed")
        table.add_column("", width=4)
        table.add_column("seconds", justify="right")
        table.add_column("step", overflow="fold")
        for step in self._steps:
            mark = Text("ok", style="green") if step.ok else Text("FAIL", style="bold red")
            text = Text("\n".join([step.name, *(f"  {line}" for line in figures(step.evidence))]))
            table.add_row(mark, f"{step.seconds:.2f}", text)
        if self._current:
            table.add_row("...", "", Text(self._current, style="dim"))
        self._live.update(table)


def figures(evidence: dict[str, Any]) -> list[str]:
    """Return the evidence as short lines, one for each key."""
    lines = []
    for key, value in evidence.items():
        if key == "requests_failed" and not value:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{name} {_inline(item)}" for name, item in value.items())
        lines.append(f"{key.replace('_', ' ')}: {_inline(value)}")
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_inline(item)}" for name, item in value.items()) + ")"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object, at the end.")
@click.option("--keep", is_flag=True, help="Leave the mesh running afterwards, until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, as_json: bool, keep: bool) -> None:
    """Start an authority and five agents on 127.71.0.N, load them, break them, and time it all.

    Needs no root, no configuration and about half a minute. Exit 0 only if every step held.
    """
    import msgspec
    import trio

    from gossipmesh.testing.demo import Demo
    from gossipmesh.testing.interrupts import end_like_ctrl_c
    from gossipmesh.testing.mesh import Mesh

    end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    reporter: PlainReporter | LiveReporter
    if as_json:
        reporter = SilentReporter()
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        reporter = LiveReporter()
    else:
        reporter = PlainReporter()
    with Mesh() as mesh:
        with reporter:
            shown = Demo(mesh, reporter)
            trio.run(shown.run)
        if as_json:
            click.echo(msgspec.json.encode(shown.result()))
        else:
            _print_totals(shown.ok, shown.requests)
        mesh.keep_files = not shown.ok
        if not shown.ok:
            click.echo(f"logs: {mesh.directory / 'logs'}", err=True)
        if keep:
            _keep_running(mesh)
    ctx.exit(0 if shown.ok else 1)


def _print_totals(ok: bool, requests: dict[str, Any]) -> None:
    statuses = json.dumps(requests["by_status"])
    click.echo(f"{requests['sent']} requests, {requests['failed']} failed, by status {statuses}")
    click.echo("every step held" if ok else "NOT every step held")


def _keep_running(mesh: "Mesh") -> None:
    """Print where everything is, and wait for Ctrl-C."""
    for node in mesh.nodes.values():
        state = "runs" if node.agent is not None and mesh.keeper.is_running(node.agent.pid) else "killed"
        click.echo(
            f"{node.name} ({state}): proxy http://{node.host}:{mesh.proxy_port}, "
            f"gossipmesh members --socket {node.socket_path}",
            err=True,
        )
    click.echo("left running; Ctrl-C ends it", err=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
