"""One kinship node, run by the Python of kinship's own environment: `kinship_node.py NAME BIND SEED`.

The key comes in KINSHIP_KEY. Prints a JSON line for each event, stamped with wall time; imports nothing
of ours. LAN preset; only the caps on streams and the pause between tries to join are changed.
"""

import importlib
import json
import os
import sys
import time

STATUS = {
    "MemberJoined": "alive",
    "MemberRecovered": "alive",
    "MemberSuspect": "suspect",
    "MemberDead": "dead",
    "MemberLeft": "left",
}


def main() -> int:
    """Join, and tell what happens until killed."""
    name, bind, *seeds = sys.argv[1:]
    kinship = importlib.import_module("kinship")
    blocking = importlib.import_module("kinship.blocking")
    config = kinship.Config.lan(
        name=name,
        bind=bind,
        keys=[os.environ["KINSHIP_KEY"]],
        seeds=seeds,
        max_inbound_streams=1_024,
        max_inbound_streams_per_ip=1_024,
        rejoin_interval=1.0,
    )
    group = blocking.Cluster(config)
    group.start()
    events = group.events()
    tell("started", "")
    for member in group.members():
        if member.name != name:
            tell("alive", member.name)
    for event in events:
        status = STATUS.get(type(event).__name__)
        if status is not None:
            tell(status, event.member.name)
    return 0


def tell(status: str, member: str) -> None:
    """Print one line."""
    line = {"at_s": time.time_ns() / 1e9, "status": status, "member": member}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
