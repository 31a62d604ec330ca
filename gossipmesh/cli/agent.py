"""`gossipmesh agent`: run this node's agent until it leaves the mesh or is restarted."""

import os
from pathlib import Path
from typing import Final

import click

from gossipmesh.net.interpreter import module_words, safe_environment

# One malloc arena: the agent's few threads take turns anyway, and each arena keeps its own free pages.
# Pages of streams, 64 KB and more, come from the kernel and go back to it: in a heap they leave holes.
# The engine inherits both.
MALLOC_SETTINGS: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/gossipmesh/agent.yaml"),
    show_default=True,
    help="The agent's configuration file.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A join token, for a node that has no identity yet.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="NAME:PORT",
    help="Where a member may be found, an address or a host name, beside spec.seeds.",
)
@click.pass_context
def agent(context: click.Context, config_path: Path, token_file: Path | None, seeds: tuple[str, ...]) -> None:
    """Run this node's agent.

    SIGTERM or Ctrl-C drains and leaves the mesh, a second one stops at once; SIGUSR2 ends the agent only, for
    a restart: the mesh is told, and the engine serves on. SIGHUP reads service files and configuration anew;
    the log says what of the latter needs a restart.
    """
    words = [*module_words("gossipmesh.agent"), str(config_path)]
    words += ["" if token_file is None else str(token_file), *seeds]
    environment = MALLOC_SETTINGS | safe_environment(os.environ)
    if context.find_root().params.get("debug"):
        environment["GOSSIPMESH_DEBUG"] = "1"
    os.execve(words[0], words, environment)  # noqa: S606
