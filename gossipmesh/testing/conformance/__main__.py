"""All of it: `python -m gossipmesh.testing.conformance [--json] [--only KIND] -- ENGINE COMMAND`.

Any executable that docs/ENGINE.md describes, asked by its sockets; nothing of it is imported.
"""

import argparse
import fnmatch
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from gossipmesh.testing.conformance import decisions, exchanges, frames, peers, transcripts
from gossipmesh.testing.conformance.outcome import Outcome, verdict

Player = Callable[[Sequence[str]], Awaitable[list[Outcome]]]
KINDS: Final[dict[str, Player]] = {
    "decisions": decisions.play,
    "frames": frames.play,
    "framing": exchanges.play_framing,
    "paths": exchanges.play_paths,
    "peers": peers.play,
    "transcripts": transcripts.play,
}
SLOW: Final[dict[str, Player]] = {"peers-alone": peers.play_alone}
"""What takes more than a minute: played when it is asked for by name, or by `--all`."""
_INTERRUPTED: Final = 130


async def played(
    command: Sequence[str], kinds: Sequence[str], claims: Sequence[str] = ("*",)
) -> list[Outcome]:
    """Play these kinds, side by side; return what the vectors came to that fit one of the patterns."""
    found: dict[str, list[Outcome]] = {}

    async def one(kind: str) -> None:
        try:
            if kind == transcripts.KIND:  # most of the time is theirs: only what is asked for is played
                chosen = [one for one in transcripts.scripts() if is_claimed(f"{kind}/{one['name']}", claims)]
                found[kind] = await transcripts.played(command, chosen)
            else:
                found[kind] = await {**KINDS, **SLOW}[kind](command)
        except Exception as error:
            found[kind] = [Outcome(kind, "all", f"could not be played: {error!r}")]

    async with trio.open_nursery() as nursery:
        for kind in kinds:
            nursery.start_soon(one, kind)
    return [one for kind in kinds for one in found[kind] if one.name == "all" or is_claimed(one.key, claims)]


def is_claimed(key: str, claims: Sequence[str]) -> bool:
    """Tell whether a vector fits one of the patterns; `*` stands for any text."""
    return any(fnmatch.fnmatchcase(key, claim.replace("[", "[[]")) for claim in claims)


def main() -> int:
    """Play what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.testing.conformance")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--all", action="store_true", help="play what takes minutes as well")
    names = [*KINDS, *SLOW]
    parser.add_argument("--only", action="append", choices=names, help="this kind (may be repeated)")
    parser.add_argument("--match", action="append", help="these vectors, KIND/NAME with * (may be repeated)")
    parser.add_argument("command", nargs="+", help="the engine, after --")
    given = parser.parse_args()
    if shutil.which(given.command[0]) is None:
        parser.error(f"{given.command[0]} is no program that can be run; name the engine's by its path")
    kinds = given.only or (names if given.all else list(KINDS))
    outcomes: list[Outcome] | None = None
    try:
        outcomes = trio.run(played, given.command, kinds, given.match or ["*"])
    except* KeyboardInterrupt:
        sys.stderr.write("interrupted: the engines that were started have been ended, nothing is judged\n")
    if outcomes is None:
        return _INTERRUPTED
    if not outcomes:
        parser.error(f"no vector of {', '.join(kinds)} fits {', '.join(given.match)}; * stands for any text")
    for outcome in outcomes:
        if outcome.fault:
            sys.stdout.write(f"FAILED {outcome.key}: {outcome.fault[:400]}\n")
    closing = verdict(outcomes)
    for kind, counts in closing["kinds"].items():
        sys.stdout.write(f"{kind}: {counts['passed']} passed, {counts['failed']} failed\n")
    if given.json:
        sys.stdout.write(json.dumps(closing) + "\n")
    return 0 if closing["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
