"""The registry of published methods, against the formulas and counts of the papers and the layers of PEFT."""

import pytest
import torch

import adapters
from adapters import AdapterConfig, ConfigurationError
from adapters.tensor_train.parameter_counts import ROBERTA_QUERY_VALUE, Sizes, chain_parameters
from adapters.tensor_train.published import PUBLISHED, published

D, HEADS = 24, 4
TINY = Sizes(D, D, layers=4, matrices=4, heads=HEADS, linears=12)
"""q and v of the tiny T5: of 2 + 2 self-attentions and 2 cross-attentions."""
WITHOUT_RANK = ("kronecker",)


def setting(name, rank, **fields):
    return published(name, None if name in WITHOUT_RANK else rank, TINY, target_modules=["q", "v"], **fields)


@pytest.mark.parametrize("rank", [1, 5, 30])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_closed_form_is_the_model_s_trainable_parameter_count(tiny_t5, logits, name, rank):
    if name == "lokr" and rank > 6:  # A is 4 x 4, B is 6 x r, C is r x 6
        for count in (
            lambda: adapters.attach(tiny_t5(), setting(name, rank)),
            lambda: PUBLISHED[name].parameters(rank, TINY),
        ):
            with pytest.raises(ValueError, match=rf"Rank 2 of \[1, {rank}\] must be at most 6"):
                count()
        return
    model = adapters.attach(tiny_t5(), setting(name, rank))
    assert adapters.summary(model).total.trainable == PUBLISHED[name].parameters(rank, TINY)
    assert torch.equal(logits(model), logits(tiny_t5()))


def test_each_task_adds_one_slice(tiny_t5):
    model = tiny_t5()
    for task in ("a", "b", "c"):
        adapters.attach(model, setting("metatt_4d_tasks", 3), task)
    sizes = Sizes(D, D, layers=4, matrices=4, heads=HEADS, tasks=3, linears=12)
    assert adapters.summary(model).total.trainable == PUBLISHED["metatt_4d_tasks"].parameters(3, sizes)


def cores_of(name, rank):
    """The cores of the method's layer 24 -> 48 in float64, all of them random."""
    layer = AdapterConfig.from_dict(published(name, rank)).build(24, 48).double().linear
    with torch.no_grad():
        for core in layer.cores:
            core.normal_()
    return layer.full(), layer.live_cores()


def test_lora_is_b_a():
    full, (a, b) = cores_of("lora", 5)
    torch.testing.assert_close(full, b[:, :, 0, 0].T @ a[0, 0].T, rtol=1e-12, atol=1e-12)


def test_kronecker_is_the_product_of_two_matrices():
    full, (a, b) = cores_of("kronecker", None)
    torch.testing.assert_close(full, torch.kron(a[0, :, :, 0], b[0, :, :, 0]), rtol=1e-12, atol=1e-12)


def test_kronecker_sum_is_a_sum_of_r_kronecker_products():
    full, (a, b) = cores_of("kronecker_sum", 5)
    expected = sum(torch.kron(a[0, :, :, i].contiguous(), b[i, :, :, 0].contiguous()) for i in range(5))
    torch.testing.assert_close(full, expected, rtol=1e-12, atol=1e-12)


def test_lokr_is_a_kronecker_product_with_a_low_rank_matrix():
    full, (a, b, c) = cores_of("lokr", 3)
    low_rank = b[0, :, 0] @ c[:, 0, :, 0]  # (m_2, r) x (r, n_2)
    torch.testing.assert_close(full, torch.kron(a[0, :, :, 0], low_rank), rtol=1e-12, atol=1e-12)


def test_tt_low_rank_is_the_product_of_a_train_of_each_side():
    full, cores = cores_of("tt_low_rank", 4)
    into, out = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for core in cores[:3]:
        into = torch.einsum("ar,rns->ans", into, core[:, 0]).reshape(-1, core.shape[3])  # (in so far, s)
    for core in reversed(cores[3:]):
        out = torch.einsum("rms,sb->rmb", core[:, :, 0], out).reshape(core.shape[0], -1)  # (r, out so far)
    torch.testing.assert_close(full, out.T @ into.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (setting("lora", 3), {"kind": "peft:LORA", "r": 3, "target_modules": ["q", "v"]}),
        (setting("lokr", 2), {"kind": "peft:LOKR", "r": 2, "target_modules": ["q", "v"]}),
    ],
    ids=["lora", "lokr"],
)
def test_the_parameter_count_equals_that_of_peft(tiny_t5, ours, theirs):
    counts = [adapters.summary(adapters.attach(tiny_t5(), kind)).total.trainable for kind in (ours, theirs)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("name", "rank", "parameters"),
    [
        ("lora", 8, 294_912),  # 0.3 M in table 2 of the paper
        ("lotr", 2, 3_168),  # 595,298 - 592,130 in the docstring of the paper's code
        ("lotr", 32, 75_266 - 1_538),  # 75k there, including the 768 x 2 + 2 parameters of a classifier
        ("lotr", 64, 198_146 - 1_538),  # 198k
        ("lotr", 128, 591_362 - 1_538),  # 591k
    ],
)
def test_published_parameter_counts_of_roberta_base(name, rank, parameters):
    assert PUBLISHED[name].parameters(rank, ROBERTA_QUERY_VALUE) == parameters


def test_loretta_has_two_more_cores_between_the_sides():
    """Its two trains, (8, 8, 12, r) and (r, 8, 12, 8) of rank 5, meet in LoRA's own rank r = 8."""
    its_trains = 2 * chain_parameters((1, 1, 1, 1), (8, 8, 12, 8), 5)
    ours = chain_parameters((1, 1, 1, 8, 12, 8), (8, 8, 12, 1, 1, 1), 5)
    assert (its_trains, ours) == (1_160, 1_160 - 5 * 8 - 8 * 5)


def test_the_closed_forms_are_the_formulas_of_the_papers():
    s, r = ROBERTA_QUERY_VALUE, 8
    formulas = {
        "lora": s.n * r * (768 + 768),
        "lokr": s.n * (24 * 24 + r * (32 + 32)),
        "metatt_4d": r * (768 + 768) + (12 + 2) * r**2,
        "metatt_4d_tasks": r * (768 + 768) + (12 + 2 + 1) * r**2,
        "metatt_5d": r * (768 + 64) + (12 + 2 + 12) * r**2,
        "lotr": r * (768 + 768) + 24 * r**2,
        "lorta": r * (768 + 64 + 12 + 12 + 2),
    }
    assert {name: PUBLISHED[name].parameters(r, s) for name in formulas} == formulas


def test_chains_are_counted_with_clipped_ranks():
    assert chain_parameters((1, 1, 4), (4, 6, 6), 100) == 4 * 4 + 4 * 6 * 24 + 24 * 24
    assert chain_parameters((5,), (7,), 3) == 35


def test_explicit_fields_override_those_of_the_method():
    description = published("metatt_4d", 16, scaling=4.0, zero_core=3)
    assert (description["rank"], description["scaling"], description["zero_core"]) == (16, 4.0, 3)
    assert AdapterConfig.from_dict(description).core_at_zero == 3
    assert published("lokr")["rank"] == [1, 8]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("metatt",), ["'metatt'", "'metatt_"]),
        (("lorta", 4), ["'lorta'", "heads", "Sizes("]),
        (("metatt_5d", 4, Sizes(24, 25, heads=4)), ["'metatt_5d'", "heads"]),
        (("kronecker", 2), ["'kronecker'", "2"]),
        ((["lora"],), ["['lora']", "lora"]),
        (("lora", 0), ["rank", "0", "8"]),
        (("lora", "8"), ["rank", "'8'"]),
        (("lora", True), ["rank", "True"]),
        (("lorta", 4, (24, 24)), ["'lorta'", "heads", "Sizes("]),
    ],
    ids=str,
)
def test_invalid_arguments_raise_an_error(arguments, named):
    with pytest.raises(ConfigurationError) as error:
        published(*arguments)
    assert all(name in str(error.value) for name in named)


@pytest.mark.parametrize("sizes", [{"heads": 0}, {"in_features": "768"}, {"linears": 0}, {"tasks": None}], ids=str)
def test_sizes_must_be_positive_integers(sizes):
    (name, value), *_ = sizes.items()
    with pytest.raises(ConfigurationError, match=rf"must be a positive integer; got {name}={value!r}"):
        Sizes(**sizes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_method_names_its_source_and_initialization(name):
    method = PUBLISHED[name]
    assert method.source
    assert method.start
