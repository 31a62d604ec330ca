"""Which of two processes runs which tests (`pytest -n 2`), and that real meshes have the machine alone.

Ends at the order of tests; what each one shows does not depend on it.
Rules:
1. The tests of a module stay together and in order, so that what its fixtures start is started once.
2. Folders of long tests come first, so that both processes end at about the same moment.
3. Real meshes come last and by one process, once no other runs anything: their bounds are on the wall clock.
   Those that have none come earlier instead: beside what computes where they mostly wait (`BESIDE`), else two
   at a time once nothing is left that computes (`PAIRED`, the longest first); no two meshes share addresses.
"""

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

BESIDE: Final = (
    "tests/e2e/test_programs.py", "tests/e2e/test_closed.py", "tests/e2e/test_chaos_at_rest.py",
    "tests/e2e/test_errors.py",
)  # fmt: skip
PAIRED: Final = (
    "tests/e2e/test_namespaces.py", "tests/e2e/test_policies.py", "tests/e2e/test_authority.py",
    "tests/e2e/test_engine_replace.py", "tests/e2e/test_policy_wait.py", "tests/e2e/test_prometheus.py",
    "tests/e2e/test_check.py", "tests/e2e/test_stolen_signer.py", "tests/e2e/test_leave.py",
    "tests/e2e/test_mass_death.py", "tests/e2e/test_why.py",
)  # fmt: skip
_LONG: Final = ("tests/mutants/", "tests/simulation/", "tests/fuzz/")
# One process waits for a mesh while the other computes, and not both at once.
_STAGES: Final = (BESIDE[:1], _LONG, BESIDE[1:])
_ALONE: Final = "tests/e2e/"


def rank(test: str) -> int:
    """Return when a test runs, by its id or its module: lower ranks first."""
    if is_alone(test):
        return len(_STAGES) + len(PAIRED) + 1
    stages = (number for number, stage in enumerate(_STAGES) if test.startswith(stage))
    paired = (number for number, module in enumerate(PAIRED, len(_STAGES) + 1) if test.startswith(module))
    return next(stages, next(paired, len(_STAGES)))


def is_alone(test: str) -> bool:
    """Tell whether nothing may run beside a test, by its id or its module."""
    return test.startswith(_ALONE) and not test.startswith(BESIDE + PAIRED)


class AloneLast(LoadScopeScheduling):
    """Hands out whole modules in the order they were collected in, and what is to be alone to one process."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # by the number of their tests, which says little
        super().__init__(config, log)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is self._keeper() or not self._only_alone_left():
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if not self._only_alone_left():
            super()._reschedule(node)
            return
        keeper = self._keeper()
        if node is not keeper and not node.shutting_down:
            node.shutdown()  # it finishes what it was given
        others = [units for other, units in self.assigned_work.items() if other is not keeper]
        if keeper is not None and not any(self._pending_of(units) for units in others):
            super()._reschedule(keeper)

    def _keeper(self) -> WorkerController | None:
        return next((node for node in self.nodes if not node.shutting_down), None)

    def _only_alone_left(self) -> bool:
        return bool(self.workqueue) and all(map(is_alone, self.workqueue))
