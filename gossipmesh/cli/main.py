"""The `gossipmesh` command: its subcommands, loaded only when asked for, and how failures are told.

Rules:
1. Nothing heavy is imported before a subcommand is known: `--help` and completion stay fast.
2. A failure a person can mend is one sentence on stderr: exit 1, or 2 when the words are wrong.
3. `--debug` shows the traceback; Ctrl-C and a closed pipe end the command without a word.
"""

import importlib
import os
import sys
from typing import Final

import click

from gossipmesh import __version__
from gossipmesh.model.errors import OperatorError, UsageError, operator_error_in

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
    "check": ("gossipmesh.cli.readers:check", "Check this node, and say how to mend what fails."),
    "identity": ("gossipmesh.cli.readers:identity", "Show this node's certificates."),
    "proxy": ("gossipmesh.cli.proxy:proxy", "Run the data plane, or show what it runs."),
    "debug": ("gossipmesh.cli.debug:debug", "Write down what this node's agent did lately."),
    "restart": ("gossipmesh.cli.readers:restart", "End this node's agent for the next one; traffic goes on."),
    "release": ("gossipmesh.cli.readers:release", "Let go the endpoints of members that went together."),
    "leave": ("gossipmesh.cli.readers:leave", "Drain this node and leave the mesh."),
    "demo": ("gossipmesh.cli.demo:demo", "Start a mesh on this machine and put it through its paces."),
}


class LazyGroup(click.Group):
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
    try:
        outcome = cli.main(args=arguments, prog_name="gossipmesh", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OperatorError as error:
        if debug:
            raise
        click.echo(f"gossipmesh: {error}", err=True)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BaseExceptionGroup as group:
        if debug:
            raise
        return _tell_group(group)
    return outcome if isinstance(outcome, int) else 0


def _tell_group(group: BaseExceptionGroup[BaseException]) -> int:
    """Tell the failure inside what a trio nursery raised; raise it again if a person cannot mend it."""
    error = operator_error_in(group)
    if error is not None:
        click.echo(f"gossipmesh: {error}", err=True)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    if group.split(KeyboardInterrupt)[1] is None:
        return EXIT_INTERRUPTED
    raise group


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail a second time."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


if __name__ == "__main__":
    main()
