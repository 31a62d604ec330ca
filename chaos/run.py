"""`python -m chaos.run SCENARIO --backend process --seed N --json`: run one chaos scenario.

Prints what happens as it happens on stderr, and the result on stdout: raw evidence, and `ok` derived
from it by the checkers the scenario names. Exit 0 only if all of them hold.
"""

import signal
import sys

import click
import msgspec

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.namespaces import enter_private_network
from gossipmesh.testing.nemesis import run_scenario, scenario_path
from gossipmesh.testing.scenario import load_scenario, needs_root
from gossipmesh.testing.waiting import WaitedInVain, first_leaf


@click.command()
@click.argument("scenario")
@click.option("--backend", type=click.Choice(["process"]), default="process", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the victim and the moments.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all evidence.")
@click.option("--keep", is_flag=True, help="Leave logs and state behind.")
def main(scenario: str, backend: str, seed: int, as_json: bool, keep: bool) -> None:
    """Run SCENARIO, a TOML file (or its bare name) of chaos/scenarios."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    loaded = load_scenario(scenario_path(scenario))
    if needs_root(loaded):
        enter_private_network(["-m", "chaos.run", *sys.argv[1:]])

    def say(line: str) -> None:
        click.echo(line, err=True)

    result = run_scenario(loaded, seed, say, keep)
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        for check in result["checks"]:
            click.echo(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['check']} {check['params'] or ''}")
            for problem in check["problems"]:
                click.echo(f"      {problem}")
        click.echo(f"measures: {msgspec.json.encode(result['measures']).decode()}")
        requests = {key: value for key, value in result["evidence"].requests.items() if key != "failures"}
        click.echo(f"requests: {msgspec.json.encode(requests).decode()}")
    if result["logs"]:
        click.echo(f"logs: {result['logs']}", err=True)
    raise SystemExit(0 if result["ok"] else 1)


def run() -> None:
    """Run the command; a failure a person can mend is one sentence."""
    try:
        main()
    except* (OperatorError, WaitedInVain) as group:
        click.echo(f"chaos: {first_leaf(group)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    run()
