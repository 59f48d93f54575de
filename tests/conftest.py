"""What all tests share: no test looks at a clock, so examples of hypothesis may take as long as they do."""

import gc

import pytest
from hypothesis import settings

settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: started last, one of them would run while the other processes have nothing."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage():
    """Every training ends in a garbage collection, which need not look at all the modules imported by now."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
