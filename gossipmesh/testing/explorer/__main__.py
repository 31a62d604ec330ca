"""Explore a story: `python -m gossipmesh.testing.explorer votes --nodes 3 --depth 6`; 1 on a violation."""

import argparse
import json
import sys
import time
from collections.abc import Sequence

from gossipmesh.testing.explorer.search import Search
from gossipmesh.testing.explorer.stories import STORIES

DEPTH: int = 4


def main(words: Sequence[str] | None = None) -> int:
    """Run the searches the command line asks for; print one line (or JSON object) each."""
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.testing.explorer", description=__doc__)
    parser.add_argument("story", choices=[*STORIES, "all"])
    parser.add_argument("--nodes", type=int, choices=(3, 4), default=3)
    parser.add_argument("--depth", type=int, default=DEPTH, help="actions in a row at most")
    parser.add_argument("--states", type=int, default=250_000, help="stop after so many")
    parser.add_argument(
        "--finish-every", type=int, default=16, help="let one ended path in so many come to rest"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    code = 0
    for name in STORIES if arguments.story == "all" else [arguments.story]:
        began = time.perf_counter()
        search = Search(
            STORIES[name](arguments.nodes),
            depth=arguments.depth,
            states_max=arguments.states,
            finish_every=arguments.finish_every,
        )
        found = search.run()
        seconds = time.perf_counter() - began
        rate = round(found.states / seconds)
        if arguments.json:
            print(json.dumps({"story": name, "nodes": arguments.nodes, **found._asdict(), "per_s": rate}))  # noqa: T201
        else:
            ended = "exhausted" if found.complete else "cut short"
            print(  # noqa: T201
                f"{name}, {arguments.nodes} nodes, depth {found.deepest} of {arguments.depth}: "
                f"{found.states} states, {found.transitions} transitions, {found.finished} paths let rest, "
                f"{ended}, {seconds:.1f} s, {rate} states/s"
            )
        if found.violation:
            print(f"VIOLATION: {found.violation}\n  " + "\n  ".join(found.path), file=sys.stderr)  # noqa: T201
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
