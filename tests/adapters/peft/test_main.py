"""python -m adapters.peft runs another package's command line in a process that knows the method TT_LORA."""

import sys

import pytest
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

from adapters.peft.__main__ import main

PROGRAM = """
import sys
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
print(__name__, sys.argv[1:], "TT_LORA" in PEFT_TYPE_TO_TUNER_MAPPING)
sys.exit(3)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "their_tool").mkdir()
    (tmp_path / "their_tool" / "__main__.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])


def test_the_module_runs_as_main_with_its_own_arguments(program, capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["their_tool", "--model", "hf", "--help"])
    assert exit_code.value.code == 3
    assert capsys.readouterr().out == "__main__ ['--model', 'hf', '--help'] True\n"
    assert "TT_LORA" in PEFT_TYPE_TO_TUNER_MAPPING


@pytest.mark.parametrize("module", ["their_tol", "their_tol.part", ".part", "json"])
def test_a_module_that_does_not_exist_is_named(module, program):
    assert f"python -m would run; got '{module}', which is not found: install its package." in main([module])
