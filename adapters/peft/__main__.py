"""python -m adapters.peft MODULE [ARGUMENTS ...]

Run the command line of another package with the method TT_LORA known to PEFT, so that it loads such adapters:

    python -m adapters.peft lm_eval --model hf --model_args pretrained=BASE,peft=FOLDER --tasks hellaswag
"""

import argparse
import importlib.util
import runpy
import sys
from collections.abc import Sequence

import adapters.peft  # noqa: F401 - registers the method


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run a module as ``python -m`` does; return the error message for ``sys.exit``, or None."""
    parser = argparse.ArgumentParser(prog="python -m adapters.peft", description=__doc__.partition("\n\n")[2])
    parser.add_argument("module", help="as after python -m")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on")
    given = parser.parse_args(arguments)
    if not _exists(given.module):
        return f"MODULE is one that python -m would run; got {given.module!r}, which is not found: install its package."
    sys.argv = [given.module, *given.arguments]
    runpy.run_module(given.module, run_name="__main__", alter_sys=True)
    return None


def _exists(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module)
        if found is not None and found.submodule_search_locations is not None:  # a package
            found = importlib.util.find_spec(f"{module}.__main__")
        return found is not None
    except (ImportError, ValueError):  # of its parent package
        return False


if __name__ == "__main__":
    sys.exit(main())
