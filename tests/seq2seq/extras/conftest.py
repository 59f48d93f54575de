"""The pictures of extras."""

import pytest


@pytest.fixture(autouse=True)
def blank_pictures():
    """None: pictures of extras are complete."""
