"""The warning about a transformers whose own adapter methods need a newer PEFT."""

import warnings

import pytest

from adapters.peft import older_peft

VERSIONS = {"transformers": "5.24.0", "peft": "0.21.2"}


@pytest.fixture
def installed(monkeypatch):
    """A function of the version that transformers needs: PEFT 0.21.2 is installed."""

    def install(needed: str | None) -> None:
        monkeypatch.setattr(older_peft, "version", VERSIONS.__getitem__)
        if needed is None:
            monkeypatch.delattr(older_peft.own_methods, "MIN_PEFT_VERSION")
        else:
            monkeypatch.setattr(older_peft.own_methods, "MIN_PEFT_VERSION", needed)

    return install


@pytest.mark.parametrize("needed", ["0.22.0", "0.21.10", "1.0"])
def test_an_older_peft_is_said_with_what_works(needed, installed):
    installed(needed)
    sentence = rf"transformers 5\.24\.0 .* need PEFT {needed}; got PEFT 0\.21\.2: use get_peft_model and PeftModel"
    with pytest.warns(UserWarning, match=sentence):
        older_peft.warn_of_older_peft()


@pytest.mark.parametrize("needed", ["0.20.0", "0.21.2", None])
def test_no_warning_without_need(needed, installed):
    installed(needed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        older_peft.warn_of_older_peft()
