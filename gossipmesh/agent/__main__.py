"""The agent's own process: `python -m gossipmesh.agent CONFIG [TOKEN_FILE [SEED...]]`; "" for no token.

`gossipmesh agent` becomes this by exec, with its pid: what runs for months then holds no command line
library. A failure a person can mend is one sentence on stderr, as every command tells it.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

import trio

from gossipmesh.agent.app import run_agent
from gossipmesh.agent.config import read_config
from gossipmesh.agent.logs import start_logging
from gossipmesh.model.errors import OperatorError, operator_error_in
from gossipmesh.model.text import visible
from gossipmesh.net.collector import calm_collector
from gossipmesh.net.interpreter import hold_standard_descriptors

_THREAD_TURN_S: Final = 0.000_5


def main(arguments: list[str]) -> int:
    """Run the agent until it leaves the mesh; return the exit code."""
    hold_standard_descriptors()
    token_file = Path(arguments[1]) if any(arguments[1:2]) else None
    try:
        config = read_config(Path(arguments[0]), token_file, arguments[2:])
        handler = start_logging(config.log_level)
        try:
            calm_collector()
            # Whenever the loop calls the kernel, a thread of ours (the log, a rendering) may take the
            # interpreter for this long; by default 5 ms, and a step of the loop has ten such calls and more.
            sys.setswitchinterval(_THREAD_TURN_S)
            # Until the agent listens for it: a log that is rotated during the start must not end it. Not
            # SIG_IGN, which the engine would inherit.
            signal.signal(signal.SIGHUP, lambda *_: None)
            trio.run(run_agent, config)
        finally:
            handler.stop()
    except KeyboardInterrupt:
        return 130
    except (OperatorError, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.split(KeyboardInterrupt)[1] is None:
            return 130
        failure = operator_error_in(error)
        if failure is None or os.environ.get("GOSSIPMESH_DEBUG", "") not in ("", "0"):
            raise
        sys.stderr.write(visible(f"gossipmesh: {failure}\n"))
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
