"""One browser for all tests of the page in a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.needs import need
from tests.web.browser import Browser, Page, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    need("chromium")
    with chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own. Its scripts must catch all exceptions."""
    made = Page(browser)
    yield made
    made.close()
    assert not made.exceptions
