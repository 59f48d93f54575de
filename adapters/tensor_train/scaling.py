"""The scalings "auto" and "rank_stabilized": as large a first step as that of a LoRA, of Adam and of gradient descent.

    W + s T,   one core G_z of T starts at zero

The first step of Adam changes each entry of G_z by the learning rate lr, and nothing else matters at first order, as
the other cores have no gradient while G_z is zero. So the loss decreases by

    lr D,   D = sum over the entries e of G_z of |dL/dG_z[e]|

D is linear in s, and s is chosen so that D has the value that it has in LoRA of rank 8 and alpha 16 in PEFT (Hu et al.
2021, arXiv:2106.09685), a well-tried setting. Let dL/dW have independent entries of mean 0 and variance 1 (any other
variance cancels). For one weight (out, in):

    LoRA     W + (alpha / r) B A,   B (out, r) zero,   A (r, in) uniform of variance 1 / (3 in), PEFT's start
             E (dL/dB)^2 = (alpha / r)^2 in / (3 in),      D = alpha out / sqrt(3)    for every r
    T        E (dL/dG_z[e])^2 = s^2 u[e]^2,                D = s sum_e u[e],          u from ``t3nsor.first_gradient``

Both D lack the factor sqrt(2 / pi) of a mean absolute value to a root mean square of normal gradients. If q places
share G_z, their gradients are independent and add up in quadrature, D = s sqrt(q) sum_e u[e], beside q LoRAs:

    s = sqrt(q) alpha out / (sqrt(3) sum_e u[e])

and with site modes, where s is one number, q is a mean over the zero cores. For 384 -> 384 with d = 3 and the shape
"cheapest", rank 2 has s = 5.44, rank 4 2.16 and rank 8 .857.

"rank_stabilized" is the same rule for gradient descent, whose first step decreases the loss by lr D2, D2 the sum of
the squares. LoRA has D2 = (alpha / r)^2 r out / 3, which falls with r, and rank-stabilised LoRA (Kalajdzievski 2023,
arXiv:2312.03732) alpha / sqrt(r) in place of alpha / r, so that no r is left. For T, where q cancels:

    D2 = s^2 sum_e u[e]^2 = alpha^2 out / 3,      s = alpha / sqrt(rho),      rho = sum_e u[e]^2 / (out / 3)

rho is the rank of the LoRA with the same D2 at s = 1: r for LoRA's own factors and start, and for any other network the
number of its terms weighted by their size, so that no bond has to be chosen. LoRA itself has s = 16 / r by "auto" and
16 / sqrt(r) by "rank_stabilized", whose first step of Adam is sqrt(r) as large.

The gradients of a real batch are not independent: if a few in features have most of the gradient, a zero core in the in
features has a smaller D than the rule says. ``adapters.calibrate_scaling`` measures both sides on a batch. An
``"init": "principal"`` has no zero core: all its cores move at once, and s also divides their start, so "auto" is 1, as
in PiSSA. With a core activation s is that of the layer without it.
"""

import math
from collections.abc import Sequence

import t3nsor as t3
from adapters.validation import ConfigurationError
from t3nsor.first_gradient import first_gradient

AUTO, RANK_STABILIZED = "auto", "rank_stabilized"
LORA_ALPHA = 16.0
"""alpha of the LoRA whose first step is the measure; its rank does not matter."""


def named_scaling(name: str, linear: t3.TTLinear, sites: float = 1.0) -> float:
    """Return s for a layer with a zero core, to four significant digits.

    Args:
        name: "auto" or "rank_stabilized".
        sites: q, the number of places that share the zero core.

    Raises:
        ConfigurationError: the other cores start so small that the zero core has no gradient.
    """
    squares = first_gradient(linear)  # u^2, in the shape of the zero core
    if not squares.any():
        raise ConfigurationError(
            f"Key 'scaling' can be {name!r} if the zero core has a gradient; got an init so small that it vanishes: "
            "choose a larger init, or a number."
        )
    if name == RANK_STABILIZED:
        return four_digits(LORA_ALPHA * math.sqrt(linear.out_features / 3 / squares.sum().item()))
    unit = squares.sqrt().sum().item()
    return four_digits(math.sqrt(sites) * LORA_ALPHA * linear.out_features / (math.sqrt(3) * unit))


def mean_sites(counts: Sequence[int]) -> float:
    """Return q for zero cores with one scaling, shared by q_g places each: (sum_g q_g / sum_g sqrt(q_g))^2."""
    return (sum(counts) / sum(map(math.sqrt, counts))) ** 2


def four_digits(value: float) -> float:
    """Return a value to four significant digits, which every machine agrees about."""
    return float(f"{value:.4g}")
