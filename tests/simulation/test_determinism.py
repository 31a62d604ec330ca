"""A seed replays byte for byte, in other processes and under other hash seeds."""

import json
import os
import subprocess
import sys

COMMAND = [
    sys.executable,
    "-m",
    "gossipmesh.testing.simulator",
    "swarm",
    "--seeds",
    "7",
    "--nodes",
    "8",
    "--json",
]


def test_traces_are_equal_under_three_hash_seeds() -> None:
    """A set iterated anywhere in a core shows here."""
    running = [
        subprocess.Popen(
            COMMAND,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for hash_seed in range(3)
    ]
    results = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        results.append(json.loads(out))
    assert results[0]["events"] > 1_000
    assert results[0] == results[1] == results[2]
