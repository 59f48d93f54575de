"""Export a trained adapter as a plain model of transformers.

    python -m seq2seq.export outputs/quickstart exported                                the run's base and its adapter
    python -m seq2seq.export outputs/quickstart/adapter exported --base path/to/base    a folder of adapters.save
    python -m seq2seq.export outputs/mixture exported --task rte                        of adapters by task, one task's

The new folder has the base model with the adapter merged into its weights, all of them dense, in safetensors, and the
tokenizer if the base has one; transformers loads it without this project. It is written completely or not at all. Exit
status 2: refused, and nothing was written.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel

import adapters
from adapters import ConfigurationError
from adapters.commands import exit_status
from adapters.factorized.folders import write_model
from adapters.factorized.replacement import without_networks
from adapters.saved.architecture import NUM_LABELS, model_class
from adapters.saved.folder import CONFIG_NAME, FolderKind, check_is_new, read_config
from seq2seq.configuration.reading import load_values, read_keys
from seq2seq.errors import refusing
from seq2seq.run_folder import RunFolder
from seq2seq.tasks.hub import only_local
from seq2seq.tasks.tokenizers import has_tokenizer, load_tokenizer


def export(source: Path, destination: Path, base: str | None = None, task: str | None = None) -> None:
    """Write the base model of a run or an adapter, with the adapter merged into its weights, as a plain folder.

    Args:
        source: a run folder, or a folder of ``adapters.save`` such as a checkpoint.
        destination: a new or empty folder.
        base: path or name of the base model; by default that of the run.
        task: the task whose adapters are merged, if there are adapters by task.

    Raises:
        ConfigurationError, CheckpointError, MergeError: one sentence about the reason. Nothing is written.
    """
    check_is_new(destination)
    model, folder = _base_and_adapter(source, base)
    model = adapters.merge_and_unload(adapters.load(model, folder), task)
    tokenizer = load_tokenizer(model.name_or_path, "base") if has_tokenizer(model.name_or_path) else None

    write_model(without_networks(model), tokenizer, destination)


def _base_and_adapter(source: Path, base: str | None) -> tuple[nn.Module, Path]:
    """The base model, loaded, and the folder of the adapter."""
    run = RunFolder(source)
    is_adapter = (source / CONFIG_NAME).is_file()
    if not is_adapter and not run.config.is_file():
        raise ConfigurationError(
            f"An export is made of a run folder or of a folder of adapters.save; got {source}, which has neither "
            f"{run.config.name} nor {CONFIG_NAME}: check the path."
        )
    folder = source if is_adapter else run.adapter
    if not folder.is_dir():
        raise ConfigurationError(
            f"An export is made of a run that has finished training; got {source}, which has no folder "
            f"{folder.name!r}: finish the run, or export one of its checkpoints and give --base."
        )
    architecture = read_config(folder, FolderKind.NATIVE)["architecture"]
    if base is not None:
        return _load_base(base, architecture), folder
    if is_adapter:
        raise ConfigurationError(
            f"An adapter is exported with its base model, which its folder does not name; got {source} alone: give "
            "--base, or export the run folder."
        )
    experiment = read_keys(load_values(run.config))
    moved = experiment.run.moved_to(run.directory.absolute())
    return replace(experiment, workload=experiment.workload.of_run(folder), run=moved).load_model(), folder


def _load_base(base: str, architecture: dict[str, Any]) -> PreTrainedModel:
    """The base model, of the class and with the size of the head that the adapter's folder names."""
    head = {NUM_LABELS: architecture[NUM_LABELS]} if NUM_LABELS in architecture else {}
    with refusing("base", base):
        return model_class(architecture).from_pretrained(
            base, local_files_only=only_local(base), use_safetensors=True, trust_remote_code=False, **head
        )


def main(arguments: list[str] | None = None) -> int:
    """Export and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a run folder, or a folder of adapters.save")
    parser.add_argument("destination", type=Path, help="a new or empty folder")
    parser.add_argument("--base", help="path or name of the base model; by default that of the run")
    parser.add_argument("--task", help="the task whose adapters are merged, if each task has its own")
    options = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    status = exit_status(
        lambda: export(options.source, options.destination, options.base, options.task), options.destination
    )
    if status == 0:
        print(options.destination)
    return status


if __name__ == "__main__":
    sys.exit(main())
