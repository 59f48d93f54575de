"""Each adapter whose ranks can change."""

import pytest

from .settings import ADAPTABLE


@pytest.fixture(params=ADAPTABLE)
def adaptable(request):
    return ADAPTABLE[request.param]
