"""The other package called adapters is noticed."""

import warnings

import pytest

from adapters import name_clash


def test_the_other_package_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr(name_clash, "version", {"adapters": "1.3.0"}.__getitem__)
    with pytest.warns(UserWarning, match=r"adapter-hub's 1\.3\.0 is installed: uninstall it"):
        name_clash.warn_of_other_package()


def test_nothing_is_said_where_it_is_not_installed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name_clash.warn_of_other_package()
