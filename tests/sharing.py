"""How processes share the tests: a file at a time, long ones first, and the faults as one, for their ground is dear.

The last process begins at the other end, with the tests that only compute. So what waits and what computes are at work side by
side, and what is left in the end is short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_FAULTS: Final = "tests/faults"


def faults_first(items: list[pytest.Item]) -> None:
    """Put the faults before all others: together they take longer than any file."""
    items.sort(key=lambda item: not item.nodeid.startswith(_FAULTS))


class FromBothEnds(LoadScopeScheduling):
    """Hands out the files in their order, and to the last process from the end."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return _FAULTS if file.startswith(_FAULTS) else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is self.nodes[-1]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
