from __future__ import annotations

import pytest

from tests.vchannel.feeding import FEEDS, Feed


@pytest.fixture(params=list(FEEDS.values()), ids=list(FEEDS))
def feed(request: pytest.FixtureRequest) -> Feed:
    """Each codec test runs once for each way of feeding."""
    way: Feed = request.param
    return way
