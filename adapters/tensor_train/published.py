"""Published methods as settings of the kind tt_lora: modes, format, ranks, and the core that starts at zero.

    one delta beside each of n linears                                    parameters
    lora               T = B A                                            n r (in + out)
    tt_matrix          rows and columns interleaved                       n sum r_{k-1} m_k n_k r_k
    tt_low_rank        in factors, then out factors                       the same sum, m_k = 1 or n_k = 1
    kronecker          T = A (x) B                                        n (m_1 n_1 + m_2 n_2)
    kronecker_sum      T = sum of r of them                               n r (m_1 n_1 + m_2 n_2)
    lokr               T = A (x) (B C)                                    n (m_1 n_1 + r (m_2 + n_2))
    tensor_ring        a trace of cores, all ranks r                      n r^2 sum m_k n_k
    cp                 a sum of r products of factors                     n r sum m_k n_k
    tucker             a core tensor (r, ..., r) and factors              n (r sum m_k n_k + r^d)

    one tensor for the model: L layers, M kinds of matrix, H heads, S tasks
    metatt_4d          T[l, m] = G_1 G_2[l] G_3[m] G_4                    r (in + out) + (L + M) r^2
    metatt_4d_tasks    T[l, s, m], a core for tasks                       r (in + out) + (L + M + S) r^2
    metatt_5d          T[l, m, h], the out side split into heads          r (in + out / H) + (L + M + H) r^2
    lotr               T[i] = A G_i B                                     r (in + out) + n r^2
    lorta              the sum of r products of factors of all modes      r (in + out / H + H + L + M)
    tensor_basis       cores mixed from b basis cores                     n d b + b sum r_{k-1} m_k n_k r_k

Here r is a rank that every bond can use. A single rank is clipped at each bond as in the layers, in the counts too; the
list [1, r] of lokr raises an error if r exceeds m_2 or n_2.

QuanTA (arXiv:2406.00132) is not in this family: its operator is a product of matrices that each act on two axes of the
features, with several matrices per axis, while in a chain each axis belongs to one core. As a chain its ranks would be
products of the ranks of its factors, and it starts by subtracting a frozen copy of the operator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.tensor_train.parameter_counts import (
    Sizes,
    balanced_factors,
    chain_parameters,
    factor_products,
    is_positive_int,
    lokr_parameters,
    low_rank_chain_parameters,
    tensor_of_sites_parameters,
    tucker_parameters,
)
from adapters.validation import ConfigurationError, nearest_name
from t3nsor.tensor_basis import BASIS_SIZE

DEFAULT_RANK = 8
"""r by default."""


@dataclass(frozen=True)
class PublishedMethod:
    """A published method as a setting of tt_lora.

    Args:
        fields: the fields of tt_lora that it sets.
        parameters: its trainable parameters in closed form, from the rank and the sizes.
        source: the publication.
        start: its published initialization, and any difference here.
        needs_heads: whether its out features are split into heads x head size.
    """

    fields: dict[str, Any]
    parameters: Callable[[int, Sizes], int]
    source: str
    start: str
    needs_heads: bool = False


def published(name: str, rank: int | None = None, sizes: Sizes | None = None, **others: Any) -> dict[str, Any]:
    """Return the adapter ``{"kind": "tt_lora", ...}`` of a published method.

    Args:
        name: a key of ``PUBLISHED``.
        rank: r in the closed forms, 8 by default; "kronecker" has none.
        sizes: sizes of the linears, needed by methods that split them into heads.
        others: other fields of tt_lora, such as ``target_modules``; they take precedence over the method's. The
            scaling is 1 by default, as ``scaling="auto"`` belongs to this library and to no paper.

    Raises:
        ConfigurationError: the name is unknown, the rank is not a positive integer or the method has none, or the
            method needs sizes.
    """
    if not isinstance(name, str) or name not in PUBLISHED:
        raise ConfigurationError(
            f"A published method is chosen by its name; got {name!r}: {nearest_name(name, PUBLISHED)}"
        )
    if rank is not None and not is_positive_int(rank):
        raise ConfigurationError(
            f"The rank of a published method must be a positive integer; got {rank!r}: 8 is typical."
        )
    method = PUBLISHED[name]
    own = {key: list(value) if isinstance(value, tuple) else value for key, value in method.fields.items()}
    if method.needs_heads:
        if not isinstance(sizes, Sizes) or sizes.out_features % sizes.heads:
            raise ConfigurationError(
                f"The method {name!r} splits the out features evenly into heads; got {sizes}: "
                "pass for example sizes=Sizes(in_features=768, out_features=768, heads=12)."
            )
        own["raw_shape"] = _shape_with_heads(own["modes"], sizes)
    if rank is not None and isinstance(own.get("rank"), int):
        raise ConfigurationError(f"The method {name!r} has no rank; got {rank}: leave it out.")
    if isinstance(own.get("rank"), list):
        own["rank"] = [(rank or DEFAULT_RANK) if r is None else r for r in own["rank"]]
    else:
        own.setdefault("rank", rank or DEFAULT_RANK)
    return {"kind": "tt_lora", "scaling": 1.0, **own, **others}


def _shape_with_heads(modes: Sequence[str], sizes: Sizes) -> list[list[int]]:
    """Return factors with all in features in one core, and the out features in two: heads and head size."""
    out = iter((sizes.heads, sizes.out_features // sizes.heads))
    rows = [next(out) if mode == "out" else 1 for mode in modes]
    return [rows, [sizes.in_features if mode == "in" else 1 for mode in modes]]


PUBLISHED: dict[str, PublishedMethod] = {
    "lora": PublishedMethod(
        {"modes": ("in", "out")},
        lambda r, s: s.n * chain_parameters((1, s.out_features), (s.in_features, 1), r),
        "Hu et al. 2021, arXiv:2106.09685, eq. 3",
        "A random, B zero",
    ),
    "tt_matrix": PublishedMethod(
        {"modes": ("out_in",) * 3, "shape_mode": "ascending"},
        lambda r, s: s.n * chain_parameters(*balanced_factors(s, 3), r),
        "Oseledets 2011, SIAM J. Sci. Comput. 33(5); as a layer Novikov et al. 2015, arXiv:1509.06569",
        "one core zero, the others random",
    ),
    "tt_low_rank": PublishedMethod(
        {"modes": ("in",) * 3 + ("out",) * 3},
        low_rank_chain_parameters,
        "LoRETTA_rep, Yang et al. 2024, arXiv:2402.11417; TT-LoRA, Anjum et al. 2024, arXiv:2408.01008",
        "last core zero, the others random; in LoRETTA_rep all are random",
    ),
    "kronecker": PublishedMethod(
        {"modes": ("out_in",) * 2, "rank": 1, "shape_mode": "ascending"},
        lambda r, s: s.n * sum(factor_products(s, 2)),
        "KronA, Edalati et al. 2022, arXiv:2212.10650",
        "one factor random, the other zero",
    ),
    "kronecker_sum": PublishedMethod(
        {"modes": ("out_in",) * 2, "shape_mode": "ascending"},
        lambda r, s: s.n * chain_parameters(*balanced_factors(s, 2), r),
        "Van Loan & Pitsianis 1993; r = n in PHM, Zhang et al. 2021, arXiv:2102.08597, eq. 3",
        "one factor of each product random, the other zero",
    ),
    "lokr": PublishedMethod(
        {"modes": ("out_in", "out", "in"), "rank": (1, None), "zero_core": 0},
        lokr_parameters,
        "LyCORIS, Yeh et al. 2023, arXiv:2309.14859; LoKr in PEFT",
        "A zero, B and C random",
    ),
    "tensor_ring": PublishedMethod(
        {"modes": ("out_in",) * 3, "format": "tensor_ring", "shape_mode": "ascending"},
        lambda r, s: s.n * r**2 * sum(factor_products(s, 3)),
        "Zhao et al. 2016, arXiv:1606.05535, eq. 1",
        "one core zero, the others random",
    ),
    "cp": PublishedMethod(
        {"modes": ("out_in",) * 3, "format": "cp", "shape_mode": "ascending"},
        lambda r, s: s.n * r * sum(factor_products(s, 3)),
        "Kolda & Bader 2009, SIAM Review 51(3), eq. 3.1",
        "one factor zero, the others random",
    ),
    "tucker": PublishedMethod(
        {"modes": ("out_in",) * 3, "format": "tucker", "shape_mode": "ascending"},
        tucker_parameters,
        "Tucker 1966; Kolda & Bader 2009, SIAM Review 51(3), eq. 4.1",
        "one factor zero, the others and the core tensor random",
    ),
    "metatt_4d": PublishedMethod(
        {"modes": ("in", "layer", "matrix", "out"), "zero_core": 0, "init": "identity"},
        lambda r, s: tensor_of_sites_parameters(r, s, s.layers, s.matrices),
        "MetaTT-4D, Lopez-Piqueres et al. 2025, arXiv:2506.09105",
        "first core zero, the others rectangular identities (ze-id-id-id)",
    ),
    "metatt_4d_tasks": PublishedMethod(
        {"modes": ("in", "layer", "task", "matrix", "out")},
        lambda r, s: tensor_of_sites_parameters(r, s, s.layers, s.tasks, s.matrices),
        "MetaTT-(4+1)D, Lopez-Piqueres et al. 2025, arXiv:2506.09105",
        "here each task's own slice is the zero one, so that tasks can be added later",
    ),
    "metatt_5d": PublishedMethod(
        {"modes": ("in", "layer", "matrix", "out", "out"), "zero_core": 0, "init": "identity"},
        lambda r, s: tensor_of_sites_parameters(r, s, s.layers, s.matrices, heads=s.heads),
        "MetaTT-5D, Lopez-Piqueres et al. 2025, arXiv:2506.09105",
        "as metatt_4d, for the unfoldings (r, m s) of its cores",
        needs_heads=True,
    ),
    "lotr": PublishedMethod(
        {"modes": ("in", "linear", "out"), "zero_core": 1},
        lambda r, s: tensor_of_sites_parameters(r, s, s.n),
        "LoTR, Bershatsky et al. 2024, arXiv:2402.01376; FacT-TT, Jie & Deng 2022, arXiv:2212.03145",
        "the core of each linear zero, A and B random, as in LoTR's own code",
    ),
    "lorta": PublishedMethod(
        {"modes": ("in", "out", "out", "layer", "matrix"), "format": "cp", "zero_core": 2},
        lambda r, s: r * (s.in_features + s.out_features // s.heads + s.heads + s.layers + s.matrices),
        "LoRTA, Hounie et al. 2024, arXiv:2410.04060",
        "one factor zero, the others random",
        needs_heads=True,
    ),
    "tensor_basis": PublishedMethod(
        {
            "modes": ("out_in",) * 3,
            "format": "tensor_basis",
            "shape_mode": "ascending",
            "share_across": ("layers", "sublayers", "projections"),
        },
        lambda r, s: BASIS_SIZE * (3 * s.n + chain_parameters(*balanced_factors(s, 3), r)),
        "this library; one dictionary for many layers after Savarese & Maire 2019, arXiv:1902.09701",
        "the coefficients of one core zero",
    ),
}
"""Published methods by name."""
