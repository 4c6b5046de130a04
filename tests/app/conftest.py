"""One headless Chromium for the tests of a file."""

import pytest


@pytest.fixture(scope="module")
def browser():
    from studio_browser import chromium

    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as running:
        yield running
