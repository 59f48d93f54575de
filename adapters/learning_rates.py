"""Learning rates per core, as multiples of the learning rate of everything else.

zero core       the core that starts at zero; in LoRA B, which LoRA+ (Hayou et al. 2024, arXiv:2402.12354) trains
                16 times as fast as A
smallest core   the trainable core of a delta with the fewest parameters, such as the core between the factors of
                LoTR or Tucker
factors         cores and scalars of factorized weights
the rest        other cores, biases, other adapters, a classifier

optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-3, zero_core=16.0))
"learning_rate_multipliers": {"zero_core": 16.0}                                            in the JSON of a run
"""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from adapters.compiled import uncompiled
from adapters.factorized.networks import network_parameters
from adapters.tensor_train.delta import TensorTrainDelta
from adapters.validation import ConfigurationError, from_json, refuse
from adapters.zero_cores import zero_core as zero_core_of

WHERE = "learning_rate_multipliers"
OF_A_DELTA = "a trainable core of that kind in a TT delta"
NEEDS = {"zero_core": OF_A_DELTA, "smallest_core": OF_A_DELTA, "factors": "a factorized weight that trains"}


@dataclass(frozen=True, kw_only=True)
class RateMultipliers:
    """The multiples of the learning rate; a core that is both of the first two has their product.

    Raises:
        ConfigurationError: one is not a positive number.
    """

    zero_core: float = 1.0
    smallest_core: float = 1.0
    factors: float = 1.0

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            _check_positive(key, value, WHERE)

    @classmethod
    def from_dict(cls, values: Any) -> "RateMultipliers":
        """Read the JSON form."""
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key '{WHERE}' is an object; got {values!r}: write for example {{\"zero_core\": 16.0}}."
            )
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, float]:
        """Return the JSON form, which ``from_dict`` reads back."""
        return asdict(self)

    def of(self, model: nn.Module) -> dict[nn.Parameter, float]:
        """The multiple of each trainable parameter, in the order of ``model.parameters()``.

        Args:
            model: with TT deltas, by ``attach`` or by the tuner in ``adapters.peft``, those of all tasks count; or with
                factorized weights.

        Raises:
            ConfigurationError: a multiple other than 1 is for parameters that the model does not have.
        """
        model = uncompiled(model)
        multiples = {parameter: 1.0 for parameter in model.parameters() if parameter.requires_grad}
        found = dict.fromkeys(NEEDS, False)
        for delta in model.modules():
            cores = trainable_cores(delta) if isinstance(delta, TensorTrainDelta) else []
            smallest = min(cores, key=nn.Parameter.numel, default=None)
            zero = zero_core_of(delta.linear) if cores else None
            for core in cores:
                found["zero_core"] |= core is zero
                found["smallest_core"] |= core is smallest
                own = (self.zero_core if core is zero else 1.0) * (self.smallest_core if core is smallest else 1.0)
                multiples[core] = own
        for parameter in network_parameters(model).values():
            if parameter in multiples:
                found["factors"] = True
                multiples[parameter] = self.factors
        for key, value in asdict(self).items():
            if value != 1 and not found[key]:
                refuse(key, f"needs {NEEDS[key]}", f"{value} for a model without one", "leave it out", WHERE)
        return multiples


def trainable_cores(delta: TensorTrainDelta) -> list[nn.Parameter]:
    """The trainable parameters of the cores of a delta, the joint ones last."""
    cores = [p for k in range(len(delta.linear.core_shapes)) for p in delta.linear.cores.parameters_of(k)]
    return [p for p in (*cores, *delta.linear.cores.joint_parameters()) if p.requires_grad]


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    zero_core: float = 1.0,
    smallest_core: float = 1.0,
    factors: float = 1.0,
) -> list[dict[str, Any]]:
    """Return the trainable parameters of a model in groups with a learning rate each.

    Args:
        model: as for ``RateMultipliers.of``.
        learning_rate: of all other trainable parameters.
        zero_core, smallest_core, factors: the multiples for these parameters.

    Returns:
        Groups {"params": [...], "lr": ...}, each parameter in one of them, in the order of ``model.parameters()``.

    Raises:
        ConfigurationError: a multiple or the learning rate is not positive, or no parameter has the multiple.
    """
    _check_positive("learning_rate", learning_rate, "parameter_groups")
    multiples = RateMultipliers(zero_core=zero_core, smallest_core=smallest_core, factors=factors).of(model)
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter, multiple in multiples.items():
        groups.setdefault(learning_rate * multiple, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def _check_positive(key: str, value: float, where: str) -> None:
    if not 0 < value < float("inf"):
        refuse(key, "must be a positive number", value, "16 is typical for one core, 1e-3 for all parameters", where)
