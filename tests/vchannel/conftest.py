from __future__ import annotations

import pytest

from tests.vchannel.feeding import FEEDS, Feed


@pytest.fixture(params=list(FEEDS.values()), ids=list(FEEDS))
def feed(request: pytest.FixtureRequest) -> Feed:
    """The way to feed a connection; a test runs once for each way."""
    way: Feed = request.param
    return way
