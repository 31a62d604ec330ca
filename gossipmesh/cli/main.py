"""The `gossipmesh` command: its subcommands, loaded only when asked for, and how failures are told.

Rules:
1. Nothing heavy is imported before a subcommand is known: `--help` and completion stay fast.
2. A failure a person can mend is one sentence on stderr: exit 1, or 2 when the words are wrong.
3. `--debug` shows the traceback; Ctrl-C and a closed pipe end the command without a word, unless it has
   changed something already.
4. What cannot be written is a failure: exit 1, never half an output and a 0.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import click

from gossipmesh import __version__
from gossipmesh.model.errors import Interrupted, OperatorError, UsageError, operator_error_in
from gossipmesh.model.text import visible

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, what a shell reports for a Ctrl-C

# Name of the command: where it is defined, and its line in the help (so that help imports none of them).
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "agent": ("gossipmesh.cli.agent:agent", "Run this node's agent."),
    "authority": ("gossipmesh.cli.authority:authority", "Create an authority, or serve enrolments."),
    "token": ("gossipmesh.cli.authority:token", "Create one-time join tokens."),
    "policy": ("gossipmesh.cli.policy:policy", "Sign, publish and inspect policy."),
    "members": ("gossipmesh.cli.readers:members", "List the members of the mesh."),
    "why": ("gossipmesh.cli.why:why", "Say why a member is held as it is: who voted, when, what undid it."),
    "services": ("gossipmesh.cli.readers:services", "List the services of the mesh."),
    "endpoints": ("gossipmesh.cli.readers:endpoints", "List the endpoints of a service."),
    "check": ("gossipmesh.cli.check:check", "Check this node, or --all members; say how to mend what fails."),
    "identity": ("gossipmesh.cli.readers:identity", "Show this node's certificates."),
    "keys": ("gossipmesh.cli.keys:keys", "Show how this node's TLS keys turn, or turn them now."),
    "engine": ("gossipmesh.cli.engine:engine", "Show this node's engine, or put another one in its place."),
    "proxy": ("gossipmesh.cli.proxy:proxy", "Run the data plane, or show what it runs."),
    "debug": ("gossipmesh.cli.debug:debug", "Write down what this node's agent did lately."),
    "restart": ("gossipmesh.cli.readers:restart", "End this node's agent for the next one; traffic goes on."),
    "release": ("gossipmesh.cli.readers:release", "Let go endpoints that are kept, or --open a closed node."),
    "leave": ("gossipmesh.cli.readers:leave", "Drain this node and leave the mesh."),
    "demo": ("gossipmesh.cli.demo:demo", "Start a mesh on this machine and put it through its paces."),
}


UNPRINTING: Final = (["agent"], ["proxy", "run"])  # what runs in the background needs no standard output


class SuggestingGroup(click.Group):
    """A group that says which of its commands was probably meant by a word that is none."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command the words begin with."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0][:80]!r}.{did_you_mean(args[0], names)}")
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """A group that imports a subcommand's module only when that subcommand is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command called `cmd_name`, or None."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module_name, _, attribute = entry[0].partition(":")
        command = getattr(importlib.import_module(module_name), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry[0]} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known words most like `word`, nothing where none is."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=3)
    return f" Did you mean {' or '.join(repr(by_lower[name]) for name in close)}?" if close else ""


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gossipmesh", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="GOSSIPMESH_DEBUG", help="Show the traceback of a failure.")
def cli(debug: bool) -> None:
    """A service mesh for virtual machines and bare metal, with no control plane in the path."""


def main() -> None:
    """Run the command in `sys.argv` and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; never raises for a failure a person can mend."""
    debug = "--debug" in arguments[:1] or os.environ.get("GOSSIPMESH_DEBUG", "") not in ("", "0")
    words = [word for word in arguments if word != "--debug"]
    if sys.stdout is None and not any(words[: len(names)] == names for names in UNPRINTING):
        return _fail("the standard output is closed, so nothing was done; use `>/dev/null` to throw it away")
    try:
        outcome = cli.main(args=arguments, prog_name="gossipmesh", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as error:
        if sys.stderr is not None:  # click would take stdout instead
            with suppress(OSError):
                error.show()
        return error.exit_code
    except OperatorError as error:
        if debug:
            raise
        return _fail(str(error), EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_FAILED
    except OSError:
        unwritten = _why_unwritten()
        if unwritten is None:
            raise
        _silence_stdout()
        return _fail(f"cannot write the output: {unwritten}; what was printed is not whole")
    except (KeyboardInterrupt, click.Abort) as interrupt:
        return _tell_interrupt(interrupt)
    except BaseExceptionGroup as group:
        if debug:
            raise
        return _tell_group(group)
    return outcome if isinstance(outcome, int) else 0


def _fail(sentence: str, code: int = EXIT_FAILED) -> int:
    with suppress(OSError):  # a full stderr as well: the exit code is all that is left
        click.echo(visible(f"gossipmesh: {sentence}"), err=True)
    return code


def _tell_interrupt(interrupt: BaseException) -> int:
    """Tell what an interrupted command had done; click hides the interrupt behind one of its own."""
    cause = interrupt.__cause__ if isinstance(interrupt, click.Abort) else interrupt
    return _fail(str(cause), EXIT_INTERRUPTED) if isinstance(cause, Interrupted) else EXIT_INTERRUPTED


def _tell_group(group: BaseExceptionGroup[BaseException]) -> int:
    """Tell the failure inside what a trio nursery raised; raise it again if a person cannot mend it."""
    error = operator_error_in(group)
    if error is not None:
        return _fail(str(error), EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    if group.split(KeyboardInterrupt)[1] is None:
        return EXIT_INTERRUPTED
    raise group


def _why_unwritten() -> str | None:
    """Return why stdout takes nothing, None when it does: what failed to be written is tried once more."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail a second time."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


if __name__ == "__main__":
    main()
