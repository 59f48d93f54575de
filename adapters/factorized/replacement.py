"""factorize and densify: dense weights out, tensor networks in, and back.

    plan        the linears and their networks, checked (``adapters.factorized.planning``)
    calibrate   the second moments of their inputs, if any of them is whitened (``adapters.factorized.moments``)
    start       the initial cores of all of them (``adapters.factorized.starts``)
    install     each linear is replaced; a model of transformers notes it in its configuration

Nothing in the model changes before the last of these.
"""

from typing import Any

from torch import Tensor, nn

from adapters.compiled import uncompiled
from adapters.factorized.configuration import as_factorizations
from adapters.factorized.layers import FactorizedLinear, factorized_modules
from adapters.factorized.moments import check_moments, collect_moments, is_moments
from adapters.factorized.planning import Target, plan_targets
from adapters.factorized.pretrained import check_not_quantised, refresh_configuration
from adapters.factorized.starts import start_cores
from adapters.validation import ConfigurationError


def factorize(model: nn.Module, config: Any, calibration: Any = None) -> nn.Module:
    """Replace weights of ``model`` by tensor networks, in place, and return the same model.

    Args:
        model: any model with ``nn.Linear`` or ``Conv1D``; on the meta device the cores hold no values.
        config: a ``FactorizedConfig``, its dictionary form, or a list of them, which name different linears.
        calibration: for ``whiten``: batches of tokens (mappings of keyword arguments of the model, or tensors of ids),
            or what ``adapters.input_moments`` has made of them.

    Raises:
        ConfigurationError: a factorization does not fit the model or its calibration. The model is as it was.
    """
    given, model = model, uncompiled(model)
    check_not_quantised(model)
    targets = plan_targets(model, as_factorizations(config))
    moments = moments_of(model, targets, calibration)
    started = [(target, start_cores(target, moments.get(target.path))) for target in targets]
    for target, cores in started:
        linear = target.linear
        module = FactorizedLinear(target.spec, linear.bias)
        module.set_network(cores, requires_grad=linear.weight.requires_grad)
        model.set_submodule(target.path, module.train(linear.training))
    refresh_configuration(model)
    return given


def moments_of(model: nn.Module, targets: list[Target], calibration: Any) -> dict[str, Tensor]:
    """The second moments (in, in) of the inputs of the linears that are whitened, by path.

    Raises:
        ConfigurationError: there is no calibration for them, or it does not reach them.
    """
    whitened = [target for target in targets if target.config.whiten != "none" and not target.linear.weight.is_meta]
    if not whitened:
        return {}
    if calibration is None:
        config = whitened[0].config
        config.refuse("whiten", "needs a calibration", repr(config.whiten), "pass batches of tokens")
    paths = [target.path for target in whitened]
    moments = calibration if is_moments(calibration) else collect_moments(model, paths, calibration)
    check_moments(moments, paths)
    return {path: moments[path].mean for path in paths}


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
    for path, module in modules.items():
        model.set_submodule(path, module.plain())
    refresh_configuration(model)
    return given
