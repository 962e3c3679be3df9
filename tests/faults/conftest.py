"""What a fault test stands on: the raw peers of the integration tests, and a trace that no run may leave."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.faults.baseline import Baseline
from tests.integration.conftest import eventually, lying_server, raw_client

__all__ = ["eventually", "lying_server", "raw_client"]


@pytest.fixture
async def baseline() -> AsyncIterator[None]:
    """After the test: the tasks and descriptors of before."""
    before = Baseline()
    yield
    await before.regained()
