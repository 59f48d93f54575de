"""factorize and densify: dense weights out, tensor networks in, and back.

    plan        the linears and their networks, checked (``adapters.factorized.planning``)
    calibrate   the second moments of their inputs (``adapters.factorized.moments``)
    start       the initial cores of all of them (``adapters.factorized.starts``)
    report      what these keep (``adapters.factorized.report``)
    apply       each linear is replaced; a model of transformers notes it in its configuration

Nothing in the model changes before the last of these.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.compiled import uncompiled
from adapters.factorized.budgets import spend_budgets
from adapters.factorized.configuration import as_factorizations
from adapters.factorized.layers import FactorizedLinear, factorized_like, factorized_modules
from adapters.factorized.moments import Moments, check_moments, collect_moments, is_moments
from adapters.factorized.planning import plan_targets
from adapters.factorized.pretrained import check_not_quantised, refresh_configuration
from adapters.factorized.report import FactorizationReport, report_of
from adapters.factorized.search import searched
from adapters.factorized.starts import start_cores
from adapters.factorized.targets import Target
from adapters.progress import progress
from adapters.validation import ConfigurationError


@dataclass(frozen=True)
class Factorization:
    """Networks that are ready to take the place of weights of a model.

    Args:
        model: with dense weights.
        started: the linears, each with the initial cores of its network.
        moments: of their inputs in the calibration, by path; empty without one.
    """

    model: nn.Module
    started: list[tuple[Target, list[Tensor]]]
    moments: dict[str, Moments]

    def report(self, held_out: Any = None) -> FactorizationReport:
        """What the networks keep of the weights; the model is left as it is.

        Args:
            held_out: batches of tokens for the errors, or their ``input_moments``; None for none.
        """
        model = uncompiled(self.model)
        paths = [path for target, _ in self.started for path in target.paths]
        return report_of(model, self.started, self.moments, moments_of(model, paths, held_out))

    def apply(self) -> nn.Module:
        """Replace the linears in place and return the model."""
        model = uncompiled(self.model)
        for target, cores in self.started:
            modules: list[FactorizedLinear] = []
            parts = zip(target.paths, target.linears, target.specs(), target.split(cores), strict=True)
            for path, linear, spec, own in parts:
                module = factorized_like(linear, spec)
                modules.append(module)
                module.share_cores(modules[0])
                module.set_network(own, requires_grad=linear.weight.requires_grad)
                model.set_submodule(path, module)
        refresh_configuration(model)
        return self.model


def plan_factorization(model: nn.Module, config: Any, calibration: Any = None) -> Factorization:
    """Compute what ``factorize`` puts into a model, and leave the model as it is; arguments and errors as there."""
    inner = uncompiled(model)
    check_not_quantised(inner)
    targets = plan_targets(inner, as_factorizations(config))
    for target in targets:
        if target.config.whiten != "none" and calibration is None and not target.like.is_meta:
            target.config.refuse("whiten", "needs a calibration", repr(target.config.whiten), "pass batches of tokens")
    moments = moments_of(inner, [path for target in targets for path in target.paths], calibration)
    for target in targets:
        _check_same_input(target, moments)
    started = [_started(target, moments) for target in progress(spend_budgets(targets, moments), "factorize")]
    return Factorization(model, started, moments)


def _started(target: Target, moments: dict[str, Moments]) -> tuple[Target, list[Tensor]]:
    """The target, of the format "searched" with the network that was found, and its initial cores."""
    of_inputs = target.inputs(moments)
    if target.config.format == "searched" and of_inputs:
        target, cores = searched(target, of_inputs[0])
        return target, [core.to(target.like.dtype).contiguous() for core in cores]
    weighs = target.config.whiten != "none" and moments
    return target, start_cores(target, [moments[path].mean for path in target.paths] if weighs else None)


def _check_same_input(target: Target, moments: dict[str, Moments]) -> None:
    """Check that stacked linears have had the same inputs, as far as there is a calibration."""
    first, *others = target.paths
    for path in others if moments and target.config.stack else []:
        if not torch.equal(moments[path].total, moments[first].total):
            rule = "names linears of one input"
            target.config.refuse("stack", rule, f"{first} and {path}, whose inputs differ", "stack others")


def factorize(model: nn.Module, config: Any, calibration: Any = None) -> nn.Module:
    """Replace weights of ``model`` by tensor networks, in place, and return the same model.

    Args:
        model: any model with ``nn.Linear`` or ``Conv1D``; on the meta device the cores hold no values.
        config: a ``FactorizedConfig``, its dictionary form, or a list of them, which name different linears.
        calibration: for ``whiten``: a list of batches of tokens (mappings of keyword arguments of the model, or tensors
            of ids (batch, length)), or what ``adapters.input_moments`` has made of them.

    Raises:
        ConfigurationError: a factorization does not fit the model or its calibration. The model is as it was.
    """
    return plan_factorization(model, config, calibration).apply()


def input_moments(model: nn.Module, config: Any, batches: Iterable[Any]) -> dict[str, Moments]:
    """The second moments of the inputs of all linears that factorizations name, by path.

    Args:
        model: with dense weights.
        config: as for ``adapters.factorize``.
        batches: mappings of keyword arguments of the model (labels are dropped), or tensors of token ids (batch,
            length).

    Raises:
        ConfigurationError: a factorization does not fit, there is no batch, ids that the model does not know, an input
            is not finite, or a linear that is never called.
    """
    inner = uncompiled(model)
    targets = plan_targets(inner, as_factorizations(config))
    return collect_moments(inner, [path for target in targets for path in target.paths], batches)


def moments_of(model: nn.Module, paths: list[str], calibration: Any) -> dict[str, Moments]:
    """The second moments of the inputs of these linears by path; empty without a calibration.

    Raises:
        ConfigurationError: it does not reach one of them.
    """
    if calibration is None:
        return {}
    moments = calibration if is_moments(calibration) else collect_moments(model, paths, calibration)
    check_moments(moments, paths)
    return {path: moments[path] for path in paths}


def without_networks(model: nn.Module) -> nn.Module:
    """The same model with dense weights, whether or not some of them were networks."""
    return densify(model) if factorized_modules(uncompiled(model)) else model


def densify(model: nn.Module) -> nn.Module:
    """Replace the networks of a factorized model by their dense weights, in place, and return the same, plain model.

    Raises:
        ConfigurationError: nothing in the model is factorized.
    """
    given, model = model, uncompiled(model)
    modules = factorized_modules(model)
    if not modules:
        raise ConfigurationError(
            f"A model to densify has factorized weights; got a {type(model).__name__} without any: call "
            "adapters.factorize first."
        )
    for path, plain in {path: module.plain() for path, module in modules.items()}.items():
        model.set_submodule(path, plain)
    refresh_configuration(model)
    return given
