"""python -m adapters.peft.to_lora SOURCE DESTINATION [--rank N] [--task TASK] [--base BASE]

Export a folder of adapters.save (tt_lora) or of our PEFT tuner as LoRA, which PEFT, vLLM and llama.cpp read. By default
it is exact; with a smaller rank the error of each linear is printed. DESTINATION is a new or empty folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters.commands import exit_status
from adapters.peft.lora_export import export_lora


def main(arguments: Sequence[str] | None = None) -> int:
    """Export and print the report; return the exit status, see ``adapters.commands``."""
    parser = argparse.ArgumentParser(prog="python -m adapters.peft.to_lora", description=__doc__.partition("\n\n")[2])
    parser.add_argument("source", type=Path, help="folder of the adapter to export")
    parser.add_argument("destination", type=Path, help="folder to create")
    parser.add_argument("--rank", type=int, help="largest rank; by default the largest matrix rank, which is exact")
    parser.add_argument("--task", help="the task whose deltas are exported, of adapters by task")
    parser.add_argument("--base", help="path or name of the base model; by default the one named in SOURCE")
    given = parser.parse_args(arguments)

    def write() -> None:
        print(export_lora(given.source, given.destination, given.rank, given.task, given.base))

    return exit_status(write, given.destination)


if __name__ == "__main__":
    sys.exit(main())
