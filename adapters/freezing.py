"""Which parameters are trainable, by these rules in this order:

1. the model's own parameters are frozen,
2. kinds of position "weights" (none, lm_head, layer_norm) decide about the parameters they name; the last one wins,
3. parameters of adapters train, except frozen and disabled cores and a module's ``frozen_parameters``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from adapters.base.controller import AdapterController
from adapters.configuration import AdapterConfig
from adapters.tables import render_table
from adapters.validation import ConfigurationError
from t3nsor.module import TTModule


@dataclass(frozen=True)
class FreezingRow:
    """One parameter, whether it is trainable, and which rule decided."""

    name: str
    count: int
    trainable: bool
    reason: str


@dataclass(frozen=True)
class FreezingReport:
    """What is trainable and why; ``str`` gives a table by reason."""

    rows: tuple[FreezingRow, ...]

    def trainable_names(self) -> list[str]:
        return [row.name for row in self.rows if row.trainable]

    def __str__(self) -> str:
        groups: dict[tuple[bool, str], list[FreezingRow]] = {}
        for row in self.rows:
            groups.setdefault((row.trainable, row.reason), []).append(row)
        lines = [
            [
                "trainable" if trainable else "frozen",
                reason,
                str(len(rows)),
                f"{sum(row.count for row in rows):,}",
                rows[0].name,
            ]
            for (trainable, reason), rows in sorted(groups.items(), key=lambda item: not item[0][0])
        ]
        return render_table(
            "Trainable parameters, and why", ["", "rule", "tensors", "parameters", "first tensor"], lines
        )


def model_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by name, each once, without the biases that exist only while adapters are merged."""
    permanent = model.state_dict().keys()
    return {name: parameter for name, parameter in model.named_parameters() if name in permanent}


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of adapters, by name."""
    prefixes = [f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterController)]
    prefixes.append("shared_parameters.")
    return {name: p for name, p in model.named_parameters() if name.startswith(tuple(prefixes))}


def weight_rules(model: nn.Module, configs: Sequence[AdapterConfig]) -> dict[str, tuple[bool, AdapterConfig]]:
    """The model's own parameters that a kind decides about: whether they train, and that configuration."""
    return {
        name: (trainable, config)
        for config in configs
        if config.position == "weights"
        for name, trainable in config.weights(model).items()
    }


def freezing_report(model: nn.Module) -> FreezingReport:
    """The report written when the last adapter was attached; the rules are not applied again.

    Raises:
        ConfigurationError: the model has no adapters.
    """
    report = getattr(model, "freezing_report", None)
    if report is None:
        raise ConfigurationError(
            f"A freezing report is written when adapters are attached; got a {type(model).__name__} without one: "
            "call adapters.attach first."
        )
    return report


def freeze(model: nn.Module) -> FreezingReport:
    """Set ``requires_grad`` of every parameter by the rules above, and keep the report on the model."""
    of_adapters = adapter_parameters(model)
    parameters = model_parameters(model)
    reasons = dict.fromkeys(parameters, (False, "the base model is frozen"))
    configs = [attachment.config for attachment in getattr(model, "adapter_attachments", [])]
    for name, (trainable, config) in weight_rules(model, configs).items():
        reasons[name] = (trainable, f"decided by adapter kind {config.kind!r}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in of_adapters or reasons[name][0])
    frozen: dict[nn.Parameter, str] = {}
    for module in model.modules():
        if isinstance(module, TTModule):
            module.freeze_cores()
        elif hasattr(module, "frozen_parameters"):
            frozen |= module.frozen_parameters()
    for parameter in frozen:
        parameter.requires_grad_(False)
    rows = []
    for name, parameter in parameters.items():
        wanted, reason = (True, "belongs to an adapter") if name in of_adapters else reasons[name]
        if wanted and not parameter.requires_grad:
            whose = "an adapter" if name in of_adapters else "a factorized weight"
            reason = frozen.get(parameter, f"frozen or disabled core of {whose}")
        rows.append(FreezingRow(name, parameter.numel(), parameter.requires_grad, reason))
    model.freezing_report = FreezingReport(tuple(rows))
    return model.freezing_report
