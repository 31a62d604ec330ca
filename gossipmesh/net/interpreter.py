"""How this project starts an interpreter for one of its own modules.

Nothing is imported from the folder somebody happens to be in: `-P` leaves it out of the search path, and
relative entries of PYTHONPATH (an empty one is that folder too) are left out as well.
"""

import os
import sys
from collections.abc import Mapping


def module_words(module: str) -> list[str]:
    """Return the start of a command line that runs `module` of this very installation."""
    return [sys.executable, "-P", "-m", module]


def hold_standard_descriptors() -> None:
    """Open whatever of 0, 1 and 2 is closed on nothing.

    The next file or socket would get that number, and what is written for people would go into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: those below are open by now


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` for an interpreter and whatever it starts: absolute import paths only."""
    safe = {**environment, "PYTHONSAFEPATH": "1"}
    paths = [path for path in safe.pop("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    if paths:
        safe["PYTHONPATH"] = os.pathsep.join(paths)
    return safe
