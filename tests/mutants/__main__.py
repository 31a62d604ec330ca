"""Run kept mutants: `python -m tests.mutants [NAME ...] [--ci] [--part I/N]`; exit 1 if one survives.

Part I of N judges every N-th mutant; parts can run beside one another. Nothing of ours is imported here:
what is slow to import is, once, and every mutant's process is forked from this one.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import cryptography.hazmat.primitives.asymmetric.ed25519
import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401
import hypothesis.strategies  # noqa: F401
import msgpack  # noqa: F401
import msgspec  # noqa: F401
import trio  # noqa: F401

from tests.mutants.mutate import Verdict, judge_mutant, judge_unmutated
from tests.mutants.table import CI_NAMES, MUTANTS


def main(words: Sequence[str]) -> int:
    """Judge the mutants asked for; print one line each."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--ci", action="store_true", help="the slice that every test run judges")
    parser.add_argument("--part", default="1/1", metavar="I/N")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args(words)
    wanted = arguments.names or (CI_NAMES if arguments.ci else [mutant.name for mutant in MUTANTS])
    unknown = sorted(set(wanted) - {mutant.name for mutant in MUTANTS})
    if unknown:
        parser.error(f"no such mutants: {', '.join(unknown)}")
    number, count = map(int, arguments.part.split("/"))
    chosen = [mutant for mutant in MUTANTS if mutant.name in wanted][number - 1 :: count]
    verdicts = [judge_unmutated(chosen)] if chosen else []
    _show(arguments.json, verdicts[0])
    for mutant in chosen:
        verdicts.append(judge_mutant(mutant))
        _show(arguments.json, verdicts[-1])
    missed = [verdict for verdict in verdicts if not verdict.caught]
    if not arguments.json:
        print(f"{len(verdicts) - 1} mutants, {len(missed)} not caught")
    return 1 if missed else 0


def _show(as_json: bool, verdict: Verdict) -> None:
    if as_json:
        print(json.dumps(verdict._asdict()), flush=True)
    else:
        print(f"{verdict.outcome:9} {verdict.name:42} {verdict.detail}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
