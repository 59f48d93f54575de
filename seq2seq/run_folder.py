"""The folder of a run, and what state it is in.

    outputs/<experiment_name>/
        config.json          the resolved configuration           metrics.json      written last: the run is finished
        adapter/             adapter_config.json, .safetensors    parameters.json   what trains, by group and layer
        predictions.jsonl    source, target, prediction           curve.png         losses and metrics by step
        README.md            the run on one page                  log.txt           what was logged
        checkpoints/         what an unfinished run resumes from  baselines.json    baselines measured so far

A finished run is kept, an unfinished one of the same configuration resumes, anything else is refused unless
``overwrite`` is true.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters import ConfigurationError
from seq2seq.arguments import Experiment

NOT_PART_OF_THE_RESULT = ("overwrite", "output_root", "log_to_wandb", "wandb_project", "report_to", "disable_tqdm")


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.json"
        self.metrics = directory / "metrics.json"
        self.adapter = directory / "adapter"
        self.parameters = directory / "parameters.json"
        self.predictions = directory / "predictions.jsonl"
        self.baselines = directory / "baselines.json"
        self.curve = directory / "curve.png"
        self.readme = directory / "README.md"
        self.log = directory / "log.txt"
        self.checkpoints = directory / "checkpoints"

    @property
    def is_finished(self) -> bool:
        return self.metrics.is_file()

    def check(self, experiment: Experiment) -> None:
        """Refuse a folder that holds something else than this experiment; writes nothing."""
        if not self.directory.exists():
            return
        if not self.config.is_file():
            if self.directory.is_dir() and not any(self.directory.iterdir()):
                return
            raise ConfigurationError(
                f"Key 'experiment_name' names a folder of runs; {self.directory} is none: choose another name."
            )
        if experiment.run.overwrite:
            return
        try:
            before = read_json(self.config)
        except ValueError:
            before = {}
        now = json.loads(json.dumps(experiment.to_dict()))
        for key in sorted({*before, *now} - set(NOT_PART_OF_THE_RESULT)):
            if before.get(key) != now.get(key):
                raise ConfigurationError(
                    f"Key {key!r} differs from that of the run in {self.directory}: {now.get(key)!r} was given and "
                    f"{before.get(key)!r} is there: choose another experiment_name, or set overwrite to true."
                )

    def open(self, experiment: Experiment) -> None:
        """Make the folder, empty where ``overwrite`` says so, and write the configuration."""
        if experiment.run.overwrite and self.config.is_file():
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.config, experiment.to_dict())

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """What is logged inside goes to the run's log as well."""
        handler = logging.FileHandler(self.log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write the file whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
