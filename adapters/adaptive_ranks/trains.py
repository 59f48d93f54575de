"""The trains of a model whose ranks can change, and the reasons why other adapters have fixed ranks.

A group has one entry in ``rank_pattern``, and so its trains share their ranks:

    tt_lora, tt_single    the train at one path, for each task that the configuration is attached for
    tt_adapter            down and up projections at one path, likewise

    delta = s T,  T of cores (r_{k-1}, m_k, n_k, r_k)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

import t3nsor as t3
from adapters.injection import attachments
from adapters.kinds.bottleneck import TensorTrainAdapterConfig
from adapters.merging import adapted_modules
from adapters.tensor_train.fields import TensorTrainFields
from adapters.tensor_train.modes import has_sites
from adapters.validation import ConfigurationError

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class TrainGroup:
    """Trains that share their ranks.

    Args:
        name: of their attachment.
        path: of the adapted module of the base.
        layers: one for each train.
        scaling: s above.
    """

    name: str
    path: str
    layers: tuple[t3.TTLinear, ...]
    scaling: float

    @property
    def ranks(self) -> Ranks:
        """The current ranks (r_1, ..., r_{d-1})."""
        return self.layers[0].ranks[1:-1]

    def parameters_at(self, ranks: Ranks) -> int:
        """Return the number of parameters in the cores of all its trains at these ranks."""
        closed = (1, *ranks, 1)
        return sum(
            r * m * n * s
            for layer in self.layers
            for r, m, n, s in zip(closed[:-1], *layer.raw_shape, closed[1:], strict=True)
        )


def adaptable_trains(model: nn.Module) -> tuple[list[TrainGroup], dict[str, str]]:
    """Return the groups in the order of their paths, and the reasons of attachments with fixed ranks by name.

    Raises:
        ConfigurationError: there is no group.
    """
    configs = {attachment.name: attachment.config for attachment in attachments(model)}
    reasons = {
        name: fixed_ranks_reason(config) for name, config in configs.items() if isinstance(config, TensorTrainFields)
    }
    groups = []
    for path, host in adapted_modules(model):
        for controller_path, controller in host.named_controllers():
            name = controller_path.rpartition(".")[2]
            if name in reasons and reasons[name] is None:
                adapters = list(controller.tasks.values())
                layers = [m for adapter in adapters for m in adapter.modules() if isinstance(m, t3.TTLinear)]
                groups.append(TrainGroup(name, path, tuple(layers), getattr(adapters[0], "scaling", 1.0)))
    left_alone = {name: reason for name, reason in reasons.items() if reason is not None}
    if not groups and any(hasattr(module, "tt_lora_delta") for module in model.modules()):
        raise ConfigurationError(
            "Ranks and gauge can change only in adapters attached by adapters.attach; got deltas of our PEFT tuner, "
            "whose configuration would not record the change: attach the same tt_lora, or round a saved folder with "
            "adapters.combine."
        )
    if not groups:
        given = "; ".join(f"{name}: {reason}" for name, reason in left_alone.items()) or ", ".join(configs) or "none"
        raise ConfigurationError(
            f"Ranks can change in tt_lora, tt_single and tt_adapter of the format tensor_train; got {given}: attach "
            "one whose cores are all trainable and not shared."
        )
    return groups, left_alone


def fixed_ranks_reason(config: TensorTrainFields) -> str | None:
    """Return the reason why the ranks of such an adapter cannot change, as a clause; None if they can."""
    if config.format != "tensor_train":
        return f"its format is {config.format!r}, and only the ranks of a tensor_train are ranks of its unfoldings"
    if has_sites(config.modes) or config.shared_slots():
        return "its cores are shared, and a truncation for one linear would change the others"
    if config.frozen_cores or config.disabled_cores:
        return "it has frozen or disabled cores, and a change of ranks changes all cores"
    if config.core_activation is not None:
        return "it has an activation between its cores, so that it is not a matrix"
    if config.init == "principal":
        return "its delta is the difference to its initial value, and rounding would act on the cores alone"
    if getattr(config, "loops", None) is not None:
        return "it has a delta for each loop, whose ranks would differ"
    if config.delta_bias == "tt":
        return "its bias is a train with the ranks of the cores"
    if config.d == 1:
        return "it has a single core, and so no rank"
    if isinstance(config, TensorTrainAdapterConfig) and config.shape_mode == "cheapest":
        return "the shapes of a bottleneck with shape_mode 'cheapest' depend on the rank"
    return None


def record_ranks(model: nn.Module, ranks: Sequence[tuple[TrainGroup, Ranks]]) -> None:
    """Record these ranks in the configurations of the attachments, as ``rank_pattern`` by complete paths."""
    patterns: dict[str, dict[str, Ranks]] = {}
    for group, of_group in ranks:
        patterns.setdefault(group.name, {})[group.path] = tuple(of_group)
    model.adapter_attachments = [
        replace(attachment, config=replace(attachment.config, rank_pattern=patterns[attachment.name]))
        if attachment.name in patterns
        else attachment
        for attachment in attachments(model)
    ]


def refresh_counts(model: nn.Module) -> None:
    """Update the parameter counts of the freezing report."""
    report = getattr(model, "freezing_report", None)
    if report is not None:
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        rows = tuple(replace(row, count=sizes.get(row.name, row.count)) for row in report.rows)
        model.freezing_report = replace(report, rows=rows)


def parameter_count(groups: Sequence[TrainGroup]) -> int:
    """Return the number of parameters in the cores of all groups."""
    return sum(group.parameters_at(group.ranks) for group in groups)


def ranks_of(groups: Sequence[TrainGroup]) -> dict[str, dict[str, list[int]]]:
    """Return the interior ranks of all groups by attachment and path, as lists for JSON."""
    found: dict[str, dict[str, list[int]]] = {}
    for group in groups:
        found.setdefault(group.name, {})[group.path] = list(group.ranks)
    return found


def delta_norm(norms: Sequence[float]) -> float:
    """Return the Frobenius norm of several matrices together."""
    return math.sqrt(math.fsum(norm * norm for norm in norms))
