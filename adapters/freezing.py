"""Which parameters train, decided once, by rules, in this order:

1. the model's own parameters are frozen,
2. kinds of position "weights" (none, lm_head, layer_norm) decide about those they name, the later attached one last,
3. parameters of adapters train, but for frozen and disabled cores, and what a module's ``fixed_parameters`` names.
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
    """One parameter, whether it trains, and the rule that decided."""

    name: str
    count: int
    trainable: bool
    reason: str


@dataclass(frozen=True)
class FreezingReport:
    """What trains and why; ``str`` of it is a table by reason."""

    rows: tuple[FreezingRow, ...]

    def trainable_names(self) -> list[str]:
        return [row.name for row in self.rows if row.trainable]

    def __str__(self) -> str:
        groups: dict[tuple[bool, str], list[FreezingRow]] = {}
        for row in self.rows:
            groups.setdefault((row.trainable, row.reason), []).append(row)
        lines = [
            [
                "trains" if trainable else "frozen",
                reason,
                str(len(rows)),
                f"{sum(row.count for row in rows):,}",
                rows[0].name,
            ]
            for (trainable, reason), rows in sorted(groups.items(), key=lambda item: not item[0][0])
        ]
        return render_table("What trains, and why", ["", "rule", "tensors", "numbers", "first of them"], lines)


def model_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by name, each once, without the biases that a merge makes for the while."""
    lasting = model.state_dict().keys()
    return {name: parameter for name, parameter in model.named_parameters() if name in lasting}


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that adapters brought in, by name."""
    below = [f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterController)]
    prefixes = (*below, "shared_parameters.")
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(prefixes)}


def weight_rules(model: nn.Module, configs: Sequence[AdapterConfig]) -> dict[str, tuple[bool, AdapterConfig]]:
    """For each of the model's own parameters that a kind decides about: whether it trains, and who says so."""
    return {
        name: (trainable, config)
        for config in configs
        if config.position == "weights"
        for name, trainable in config.weights(model).items()
    }


def freezing_report(model: nn.Module) -> FreezingReport:
    """What the rules decided when the last adapter was attached; nothing is evaluated again.

    Raises:
        ConfigurationError: nothing was attached to the model.
    """
    report = getattr(model, "freezing_report", None)
    if report is None:
        raise ConfigurationError(
            f"A freezing report is written when adapters are attached; {type(model).__name__} has none: "
            "call adapters.attach first."
        )
    return report


def freeze(model: nn.Module) -> FreezingReport:
    """Set ``requires_grad`` of every parameter by the rules above, say why for each, and leave that on the model."""
    brought = adapter_parameters(model)
    parameters = model_parameters(model)
    reasons = dict.fromkeys(parameters, (False, "the base model is frozen"))
    configs = [attachment.config for attachment in getattr(model, "adapter_attachments", [])]
    for name, (trainable, config) in weight_rules(model, configs).items():
        reasons[name] = (trainable, f"adapter kind {config.kind!r} says so")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in brought or reasons[name][0])
    fixed: dict[nn.Parameter, str] = {}
    for module in model.modules():
        if isinstance(module, TTModule):
            module.freeze_cores()
        elif hasattr(module, "fixed_parameters"):
            fixed |= module.fixed_parameters()
    for parameter in fixed:
        parameter.requires_grad_(False)
    rows = []
    for name, parameter in parameters.items():
        if name in brought:
            trainable = parameter.requires_grad
            held = fixed.get(parameter, "frozen or disabled core of an adapter")
            reason = "belongs to an adapter" if trainable else held
        else:
            trainable, reason = reasons[name]
        rows.append(FreezingRow(name, parameter.numel(), trainable, reason))
    model.freezing_report = FreezingReport(tuple(rows))
    return model.freezing_report
