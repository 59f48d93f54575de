"""The warning about adapter-hub's package, which is called adapters too."""

import warnings

import pytest

from adapters import name_clash


def test_warning_names_the_other_package_and_its_version(monkeypatch):
    monkeypatch.setattr(name_clash, "version", {"adapters": "1.3.0"}.__getitem__)
    with pytest.warns(UserWarning, match=r"adapter-hub's 1\.3\.0 in addition to this project's: uninstall it"):
        name_clash.warn_of_other_package()


def test_no_warning_without_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name_clash.warn_of_other_package()
