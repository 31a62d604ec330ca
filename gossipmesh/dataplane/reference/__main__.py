"""`python -m gossipmesh.dataplane.reference`: one engine process, or answers to decision vectors."""

import argparse
import logging
import resource
import sys
from pathlib import Path

import msgspec
import trio

from gossipmesh.dataplane.reference.engine import ReferenceEngine
from gossipmesh.dataplane.reference.engine_log import EngineLog
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import access_log
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.net.collector import calm_collector


def answer_decisions() -> None:
    """Answer one JSON question per line of standard input with one JSON line."""
    from gossipmesh.traffic.decide import decide_untrusted  # memory an engine that serves need not hold

    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            answer = decide_untrusted(msgspec.json.decode(line))
        except (MalformedInput, msgspec.DecodeError) as error:
            answer = {"error": str(error)}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.dataplane.reference")
    parser.add_argument("--socket", type=Path, help="where the agent attaches (made, mode 0600)")
    parser.add_argument("--access-log", type=Path, help="JSON lines, one per request")
    parser.add_argument(
        "--access-log-max-bytes",
        type=int,
        default=access_log.BYTES_MAX_DEFAULT,
        help="of one file",
    )
    parser.add_argument(
        "--access-log-keep", type=int, default=access_log.KEEP_DEFAULT, help="how many files there may be"
    )
    parser.add_argument(
        "--access-log-sample", type=float, default=1.0, help="share of lines written; failures always are"
    )
    parser.add_argument("--decide", action="store_true", help="answer decision vectors on standard input")
    arguments = parser.parse_args()
    if arguments.decide:
        answer_decisions()
        return 0
    if arguments.socket is None or arguments.access_log is None:
        parser.error("--socket and --access-log are both needed")
    settings = access_log.AccessLogSettings(
        arguments.access_log,
        max(arguments.access_log_max_bytes, access_log.BYTES_MAX_MIN),
        min(max(arguments.access_log_keep, 1), access_log.KEEP_MAX),
        arguments.access_log_sample,
    )
    counters = Counters()
    engine_log = EngineLog(lambda: counters.add("engine_log_shed"))
    logging.basicConfig(level=logging.INFO, handlers=[engine_log])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        engine = ReferenceEngine(arguments.socket, settings, counters)
    except (OperatorError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    calm_collector()
    trio.run(lambda: engine.run(handle_signals=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
