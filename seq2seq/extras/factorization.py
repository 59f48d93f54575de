"""Factorization: the run's base model gets tensor networks in place of weights, before adapters are attached.

    "factorize": {"format": "low_rank", "budget": 0.5, "whiten": "full"}     one, or a list of them
    "calibration": {"tokens": 65536}                                         texts for ``whiten`` and for the report
    "adapter": {"kind": "factors"}                                           what trains

``adapters.factorized`` has the mathematics. The run folder keeps the start in start.safetensors (the networks alone),
so that a run which goes on, predicts or is exported does not compute it again; ``do_factorize`` alone ends there.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import adapters
from adapters import ConfigurationError, FactorizedConfig
from adapters.factorized.configuration import as_factorizations
from adapters.factorized.networks import load_networks, read_note, save_networks
from adapters.factorized.report import FactorizationReport, WeightReport
from adapters.validation import from_json, refuse
from seq2seq.experiment import Experiment, Extra
from seq2seq.run_folder import RunFolder
from seq2seq.workload import Prepared, Workload

logger = logging.getLogger(__name__)

FILE = "start.safetensors"
HELD_OUT = 5
"""One of so many windows measures errors; the others calibrate."""


@dataclass(frozen=True)
class Factorizations:
    """The key ``factorize``: one factorization or several, which name different weights."""

    configs: tuple[FactorizedConfig, ...]

    @classmethod
    def from_dict(cls, values: Any) -> "Factorizations":
        return cls(tuple(as_factorizations(values)))

    def to_dict(self) -> list[dict[str, Any]]:
        return [config.to_dict() for config in self.configs]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The key ``calibration``: tokens whose activations weigh the errors of a factorization.

    Args:
        file: a text; None for the run's training text.
        tokens: how many are read, from the start of the text; a fifth of them measures errors only.
    """

    file: str | None = None
    tokens: int = 65536

    def __post_init__(self) -> None:
        if self.file == "":
            refuse("file", "names a text", "an empty name", "leave it out for the training text", "calibration")
        if self.tokens < 2:
            refuse("tokens", "must be at least 2", self.tokens, "65536 is the default", "calibration")

    @classmethod
    def from_dict(cls, values: Any) -> "Calibration":
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'calibration' is an object; got {values!r}: write for example {{\"tokens\": 65536}}."
            )
        return from_json(cls, values, "calibration")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def path(self) -> Path | None:
        """The text, with ~ as the home directory."""
        return None if self.file is None else Path(self.file).expanduser()


@dataclass(frozen=True, kw_only=True)
class Factorization(Extra):
    """Weights replaced by tensor networks.

    Args:
        factorize: which, and by what, see ``adapters.FactorizedConfig``; None for none.
        calibration: texts to weigh errors by; by default the run's training text if a factorization asks for one.
        do_factorize: whether the networks are computed; if not, the run starts from those of an earlier start.
    """

    changes_training = True

    factorize: Factorizations | None = None
    calibration: Calibration | None = None
    do_factorize: bool = True

    @property
    def acts_alone(self) -> bool:
        return self.factorize is not None and self.do_factorize

    @property
    def texts(self) -> Calibration | None:
        """Where tokens come from; None if no factorization needs them and none are given."""
        needed = self.factorize is not None and any(config.whiten != "none" for config in self.factorize.configs)
        return self.calibration or (Calibration() if needed else None)

    def check(self, experiment: Experiment) -> None:
        if self.factorize is None:
            if self.calibration is not None:
                refuse("calibration", "belongs to a factorization", "none", "add factorize, or leave it out", "the run")
            return
        if self.texts is not None and type(experiment.workload).token_windows is Workload.token_windows:
            given = f"the workload {experiment.workload.name!r}"
            fix = 'use whiten "none"' if self.calibration is None else "leave it out"
            refuse("calibration", "needs a workload that reads texts", given, fix, "the run")
        if any("random_backbone" in getattr(extra, "baselines", ()) for extra in experiment.extras):
            for config in self.factorize.configs:
                untrained(config)

    def base_model(self, experiment: Experiment, random: bool) -> nn.Module | None:
        """The dense model with its networks: those of the run folder if they are its start, else new ones."""
        if self.factorize is None:
            return None
        path = experiment.run.directory / FILE
        model = experiment.workload.load_model(random)
        if random:
            return adapters.factorize(model, [untrained(config) for config in self.factorize.configs])
        if is_trained(experiment):
            if read_note(path) is None:
                rule = "needs the networks that a trained run started from"
                refuse("factorize", rule, f"no readable {path}", "restore it, or set overwrite to true", "the run")
            return load_networks(model, path)
        windows = self.windows(experiment.workload)
        known = identity(experiment, windows)
        if not experiment.run.overwrite and without_report(read_note(path)) == known:
            return load_networks(model, path)
        if not self.do_factorize:
            rule = "is false in a run folder that has a start of this configuration"
            refuse("do_factorize", rule, f"none in {path.parent}", "set it to true", "the run")
        held_out = max(len(windows) // HELD_OUT, 1) if len(windows) > 1 else 0
        calibration = windows[: len(windows) - held_out]
        if windows:
            model.to(experiment.training_arguments().device)  # which reads the tokens faster
        plan = adapters.plan_factorization(model, [*self.factorize.configs], calibration or None)
        report = plan.report(windows[len(calibration) :] or None)
        logger.info("%s", report)
        model = plan.apply()
        model.factorization_note = {**known, "report": report.to_dict()}
        return model

    def windows(self, workload: Workload) -> list[Tensor]:
        """Token ids (1, window) that calibrate and measure errors; none if no text is read."""
        return [] if self.texts is None else workload.token_windows(self.texts.path, self.texts.tokens)

    def opened(self, experiment: Experiment, prepared: Prepared) -> None:
        """Write the networks if they are new."""
        note = getattr(prepared.model, "factorization_note", None)
        if note is not None:
            save_networks(prepared.model, experiment.run.directory / FILE, note)

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The report of the start."""
        return {"factorization": self.factorize and (read_note(directory / FILE) or {}).get("report")}

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        return self.factorize is None or bool(result.get("factorization"))

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        report = report_in(result)
        if report is None:
            return []
        weights = report.weights
        dense, kept = (sum(getattr(w, name) for w in weights) for name in ("dense_parameters", "parameters"))
        rows = [["factorized weights", f"{kept:,} of {dense:,} parameters ({kept / dense:.1%})"]]
        errors = [weight.error for weight in weights if weight.error is not None]
        if errors:
            rows.append(
                ["mean error of their outputs at the start", f"{sum(errors) / len(errors):.3f} on held-out tokens"]
            )
        return rows

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        report = report_in(result)
        return "" if report is None else f"The start of the factorized weights:\n\n```\n{report}\n```\n\n"

    def tables(self, result: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]:
        report = report_in(result)
        if report is None:
            return {}
        header = [field.name for field in fields(WeightReport)]
        return {"factorization": (header, [[getattr(w, name) for name in header] for w in report.weights])}


def untrained(config: FactorizedConfig) -> FactorizedConfig:
    """The same networks with random values.

    Raises:
        ConfigurationError: their shapes depend on the weights.
    """
    return replace(config, start="random", whiten="none")


def is_trained(experiment: Experiment) -> bool:
    """Whether the run folder has what was trained from its start, which belongs to no other one."""
    folder = RunFolder(experiment.run.directory)
    return not experiment.run.overwrite and (folder.adapter.is_dir() or any(folder.checkpoints.glob("checkpoint-*")))


def identity(experiment: Experiment, windows: list[Tensor]) -> dict[str, Any]:
    """What a start depends on: the keys of the workload and of the factorization, and the tokens that are read."""
    values = experiment.to_dict()
    names = [field.name for field in fields(experiment.workload)]
    tokens = hashlib.sha256(b"".join(window.numpy().tobytes() for window in windows)).hexdigest()
    return {**{name: values[name] for name in (*names, "factorize", "calibration")}, "tokens_sha256": tokens}


def without_report(note: Any) -> Any:
    """A note as ``identity`` makes it."""
    return {name: value for name, value in note.items() if name != "report"} if isinstance(note, dict) else None


def report_in(result: Mapping[str, Any]) -> FactorizationReport | None:
    """The report of a result; None without one."""
    values = result.get("factorization")
    if not values:
        return None
    return FactorizationReport(**{**values, "weights": tuple(WeightReport(**weight) for weight in values["weights"])})
