"""One mesh of real processes per test module, started once and ended in every case."""

from collections.abc import Iterator

import pytest
import trio

from gossipmesh.testing.mesh import Mesh


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """Five nodes with their services, all alive and passing."""
    with Mesh() as mesh:
        trio.run(mesh.start)
        yield mesh
