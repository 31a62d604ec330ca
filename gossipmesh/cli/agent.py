"""`gossipmesh agent`: run this node's agent until it leaves the mesh."""

from pathlib import Path

import click


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
def agent(config_path: Path, token_file: Path | None) -> None:
    """Run this node's agent. SIGTERM or Ctrl-C drains and leaves the mesh, a second one stops at once."""
    from gossipmesh.agent.config import read_config

    config = read_config(config_path, token_file)

    import trio

    from gossipmesh.agent.app import run_agent
    from gossipmesh.net.collector import calm_collector
    from gossipmesh.agent.logs import start_logging

    handler = start_logging(config.log_level)
    try:
        calm_collector()
        trio.run(run_agent, config)
    finally:
        handler.stop()
