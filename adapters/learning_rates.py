"""parameter_groups: learning rates per core, for an optimizer.

zero core       the core that starts at zero; in LoRA B, which LoRA+ (Hayou et al. 2024, arXiv:2402.12354) trains
                16 times as fast as A
smallest core   the trainable core of a delta with the fewest parameters, such as the core between the factors of
                LoTR or Tucker
the rest        other cores, biases, other adapters, a classifier

optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-3, zero_core=16.0))
"""

from typing import Any

from torch import nn

from adapters.compiled import uncompiled
from adapters.tensor_train.delta import TensorTrainDelta
from adapters.validation import refuse
from adapters.zero_cores import zero_core as zero_core_of

WHERE = "parameter_groups"


def parameter_groups(
    model: nn.Module, learning_rate: float, zero_core: float = 1.0, smallest_core: float = 1.0
) -> list[dict[str, Any]]:
    """Return the trainable parameters of a model in groups with a learning rate each.

    Args:
        model: with TT deltas, by ``attach`` or by the tuner in ``adapters.peft``; those of all tasks count.
        learning_rate: of all other trainable parameters.
        zero_core, smallest_core: the factors of these cores; a core that is both has their product.

    Returns:
        Groups {"params": [...], "lr": ...}, each parameter in one of them, in the order of ``model.parameters()``.

    Raises:
        ConfigurationError: a factor or the learning rate is not positive, or no core has the factor.
    """
    for key, value in (("learning_rate", learning_rate), ("zero_core", zero_core), ("smallest_core", smallest_core)):
        if not 0 < value < float("inf"):
            refuse(key, "must be a positive number", value, "16 is typical for one core, 1 for none", WHERE)
    factors: dict[int, float] = {}
    found = dict.fromkeys(("zero_core", "smallest_core"), False)
    for delta in uncompiled(model).modules():
        if not isinstance(delta, TensorTrainDelta):
            continue
        cores = [
            parameter
            for k in range(len(delta.linear.core_shapes))
            for parameter in delta.linear.cores.parameters_of(k)
            if parameter.requires_grad
        ]
        cores += [parameter for parameter in delta.linear.cores.joint_parameters() if parameter.requires_grad]
        smallest = min(cores, key=nn.Parameter.numel, default=None)
        zero = zero_core_of(delta.linear)
        found["zero_core"] |= any(core is zero for core in cores)
        found["smallest_core"] |= smallest is not None
        for core in cores:
            factors[id(core)] = (zero_core if core is zero else 1.0) * (smallest_core if core is smallest else 1.0)
    for key, value in (("zero_core", zero_core), ("smallest_core", smallest_core)):
        if value != 1 and not found[key]:
            rule = "needs a trainable core of that kind in a TT delta"
            refuse(key, rule, f"{value} for a model without one", "leave it out", WHERE)
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault(learning_rate * factors.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
