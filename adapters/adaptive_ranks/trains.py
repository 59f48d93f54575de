"""The trains of a model whose ranks can change, and why those of other adapters cannot.

A group is what one line of ``rank_pattern`` speaks of, and so has its ranks in common:

    tt_lora, tt_single    the train at one place, one for each task that the configuration is attached for
    tt_adapter            down and up of one place, likewise

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
    """Trains with ranks in common.

    Args:
        name: their attachment's name.
        path: the base's module that they stand at.
        layers: their layers.
        scaling: s above.
    """

    name: str
    path: str
    layers: tuple[t3.TTLinear, ...]
    scaling: float

    @property
    def ranks(self) -> Ranks:
        """(r_1, ..., r_{d-1}) as they are."""
        return self.layers[0].ranks[1:-1]

    def numbers(self, ranks: Ranks) -> int:
        """How many numbers the cores of all its trains have at these ranks."""
        closed = (1, *ranks, 1)
        return sum(
            r * m * n * s
            for layer in self.layers
            for r, m, n, s in zip(closed[:-1], *layer.raw_shape, closed[1:], strict=True)
        )


def adaptable_trains(model: nn.Module) -> tuple[list[TrainGroup], dict[str, str]]:
    """The groups in the order of their places, and by name the attachments of trains that are left alone, and why.

    Raises:
        ConfigurationError: there is no group.
    """
    configs = {attachment.name: attachment.config for attachment in attachments(model)}
    reasons = {
        name: why_ranks_are_fixed(config) for name, config in configs.items() if isinstance(config, TensorTrainFields)
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
            "Ranks and gauge change in adapters of adapters.attach; got deltas of our tuner in PEFT, whose "
            "configuration would not say what has changed: attach the same tt_lora, or round a saved folder by "
            "adapters.combine."
        )
    if not groups:
        given = "; ".join(f"{name}: {reason}" for name, reason in left_alone.items()) or ", ".join(configs) or "none"
        raise ConfigurationError(
            f"Ranks change in adapters of tensor trains (tt_lora, tt_single, tt_adapter); attached is {given}: attach "
            "one with the format tensor_train and cores of its own that all train."
        )
    return groups, left_alone


def why_ranks_are_fixed(config: TensorTrainFields) -> str | None:
    """Why the ranks of such an adapter cannot change; None where they can."""
    if config.format != "tensor_train":
        return f"its format is {config.format!r}, and only the ranks of a tensor_train are those of its unfoldings"
    if has_sites(config.modes) or config.shared_slots():
        return "cores are shared, and what fits one of the places would be cut from the others"
    if config.frozen_cores or config.disabled_cores:
        return "cores are frozen or disabled, and a change of ranks changes all cores"
    if config.core_activation is not None:
        return "an activation stands between the cores, so that they are no matrix"
    if config.init == "principal":
        return "what trains is the difference to a start that is kept, and rounding would not see the difference"
    if config.bias == "tt":
        return "its bias is a train too, whose rank is that of the cores"
    if config.d == 1:
        return "it has a single core, and so no rank"
    if isinstance(config, TensorTrainAdapterConfig) and config.shape_mode == "cheapest":
        return "the shapes of a bottleneck with shape_mode 'cheapest' follow the rank"
    return None


def record_ranks(model: nn.Module, ranks: Sequence[tuple[TrainGroup, Ranks]]) -> None:
    """Let the configurations of the attachments say these ranks, as ``rank_pattern`` of whole paths."""
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
    """Let the freezing report say how many numbers the parameters have now."""
    report = getattr(model, "freezing_report", None)
    if report is not None:
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        rows = tuple(replace(row, count=sizes.get(row.name, row.count)) for row in report.rows)
        model.freezing_report = replace(report, rows=rows)


def parameter_count(groups: Sequence[TrainGroup]) -> int:
    """How many numbers the cores of all groups have as they are."""
    return sum(group.numbers(group.ranks) for group in groups)


def ranks_of(groups: Sequence[TrainGroup]) -> dict[str, dict[str, list[int]]]:
    """The interior ranks of all groups as they are, by attachment and path, as JSON has them."""
    found: dict[str, dict[str, list[int]]] = {}
    for group in groups:
        found.setdefault(group.name, {})[group.path] = list(group.ranks)
    return found


def delta_norm(norms: Sequence[float]) -> float:
    """The Frobenius norm of several matrices beside each other."""
    return math.sqrt(math.fsum(norm * norm for norm in norms))
