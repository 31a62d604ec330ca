"""Which program is this node's engine: the words that start it.

The one place of the agent that names an engine. Ends at words: running them is `engine_process`'s, what they
mean to an engine is docs/ENGINE.md's. A program of the operator's own must be one that nobody else can
change: it is given this node's keys.
"""

import os
from pathlib import Path
from typing import Final

from gossipmesh.agent.config import EngineChoice, EngineKind
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.files import UnsafeFile, judged, require_own_file
from gossipmesh.net.interpreter import module_words

REFERENCE_MODULE: Final = "gossipmesh.dataplane.reference"


def engine_words(choice: EngineChoice) -> list[str]:
    """Return the start of the command line of the engine that was chosen, without its sockets and logs.

    Raises:
        OperatorError: it is no program of root's or ours that can be run; the sentence names the key.
    """
    if choice.kind is not EngineKind.COMMAND:  # `auto` is the only engine there is, so far
        return module_words(REFERENCE_MODULE)
    _require_runnable(Path(choice.command[0]))
    words = list(choice.command)
    return words if choice.workers is None else [*words, "--workers", str(choice.workers)]


def _require_runnable(path: Path) -> None:
    """Check that a program is one that only root and ourselves can change, wherever links lead.

    It is run by the name it was given: an interpreter finds its libraries by that.

    Raises:
        OperatorError: it is not there, others could change it, or it cannot be run.
    """
    try:
        found = judged(path)
        require_own_file(found, found.stat())
    except UnsafeFile as error:
        raise OperatorError(f"spec.engine.command: {error}") from None
    except OSError as error:
        raise OperatorError(
            f"spec.engine.command names {path}: {error.strerror}; name the engine's program by its whole path"
        ) from None
    if not os.access(found, os.X_OK):
        raise OperatorError(
            f"spec.engine.command names {path}, which this user may not run: `chmod +x {path}`, or name "
            "another one"
        )
