"""intrinsic_said: one vector changes all matrices, through random maps that are redrawn when a model is loaded."""

import copy

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers

import adapters
from adapters import ConfigurationError, IntrinsicDelta
from adapters.kinds.fastfood import Fastfood

SAID = {"kind": "intrinsic_said", "dim": 200}
MATRICES = 2 * (4 + 2) + 2 * (8 + 2)


def deltas(model):
    """The modules by the path of their linear."""
    return {
        path: module.beside["intrinsic_said"].active
        for path, module in adapters.adapted_modules(model)
        if "intrinsic_said" in module.beside
    }


@pytest.mark.parametrize(
    ("feed_forward_proj", "dtype"),
    [("relu", torch.float32), ("gated-gelu", torch.bfloat16)],
    ids=["float32", "bfloat16"],
)
def test_step_0_equals_the_base_model_and_theta_has_a_gradient(tiny_t5, logits, batch, feed_forward_proj, dtype):
    base = tiny_t5(feed_forward_proj).to(dtype)
    model = adapters.attach(copy.deepcopy(base), SAID)
    assert torch.equal(logits(model), logits(base))
    model(**batch).loss.backward()
    (theta,) = model.shared_parameters.values()
    assert (theta.grad != 0).all()
    assert all(delta.scale == 1 and delta.scale.grad == 0 for delta in deltas(model).values())


@pytest.mark.parametrize(
    ("fields", "matrices"),
    [
        ({}, MATRICES),
        ({"stacks": ["encoder"]}, 12),
        ({"sublayers": ["feed_forward"]}, 8),
        ({"sublayers": ["cross_attention"], "layers": [1]}, 4),
    ],
    ids=str,
)
def test_dim_is_the_total_trainable_parameter_count(tiny_t5, fields, matrices):
    model = adapters.attach(tiny_t5(), {**SAID, **fields})
    (theta,) = model.shared_parameters.values()
    assert len(deltas(model)) == matrices
    assert theta.shape == (200 - matrices,)
    assert adapters.summary(model).total.trainable == 200
    for path, delta in deltas(model).items():
        assert delta.live("theta") is theta
        assert [name for name, _ in delta.named_parameters()] == ["scale"]
        assert delta.delta_weight().shape == model.get_submodule(path).weight.shape


def test_the_model_has_weights_W_plus_lambda_P_theta_merged_and_unmerged(tiny_t5, trained, logits):  # noqa: N802
    model = trained(adapters.attach(tiny_t5(), {**SAID, "dim": 50})).double()
    (theta,) = model.shared_parameters.values()
    dense = tiny_t5().double()
    with torch.no_grad():
        for path, delta in deltas(model).items():
            weight = dense.get_submodule(path).weight
            projection = Fastfood(weight.numel(), len(theta), delta.projection.seed)
            columns = [projection(row) for row in torch.eye(len(theta), dtype=torch.float64)]
            weight += delta.scale * (torch.stack(columns, dim=1) @ theta).reshape(weight.shape)
    expected = logits(dense)
    assert not torch.allclose(logits(model), logits(tiny_t5().double()), rtol=1e-2)
    torch.testing.assert_close(logits(model), expected, rtol=1e-10, atol=1e-10)
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_exact():
    delta = IntrinsicDelta(4, 6, dim=5, seed=1).double()
    x, theta, scale = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (5,), ()))

    def change(x, theta, scale):
        return torch.func.functional_call(delta, {"theta": theta, "scale": scale}, x)

    assert torch.autograd.gradcheck(change, (x, theta, scale))
    expected = F.linear(x, scale * Fastfood(24, 5, seed=1)(theta).reshape(6, 4))
    torch.testing.assert_close(change(x, theta, scale), expected, rtol=1e-12, atol=1e-12)


def test_each_matrix_has_its_own_map_determined_by_the_seed(tiny_t5):
    seeds = [
        [delta.projection.seed for delta in deltas(adapters.attach(tiny_t5(), {**SAID, **fields})).values()]
        for fields in ({}, {"projection_seed": 0}, {"projection_seed": 1})
    ]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 2 * MATRICES


def test_each_task_has_its_own_theta_in_the_same_subspace(tiny_t5):
    model = tiny_t5()
    for task in ("a", "b"):
        adapters.attach(model, SAID, task)
    assert len(model.shared_parameters) == 2
    for _, module in adapters.adapted_modules(model):
        a, b = module.beside["intrinsic_said"].tasks.values()
        assert a.projection.seed == b.projection.seed
        assert a.live("theta") is not b.live("theta")


def test_a_checkpoint_holds_the_parameters_and_maps_are_redrawn(tiny_t5, trained, logits, tmp_path):
    model = trained(adapters.attach(tiny_t5(), SAID))
    expected = logits(model)
    adapters.save(model, tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == 200
    loaded = adapters.load(tiny_t5(), tmp_path)
    assert all(delta.projection._drawn is None for delta in deltas(loaded).values())
    assert torch.equal(logits(loaded), expected)
    assert not [name for name, _ in loaded.named_buffers() if "intrinsic" in name]


def test_maps_are_drawn_lazily_and_do_not_change_torch_s_random_state(tiny_t5, logits):
    model = tiny_t5()
    state = torch.get_rng_state()
    adapters.attach(model, SAID)
    assert all(delta.projection._drawn is None for delta in deltas(model).values())
    logits(model)
    assert all(delta.projection._drawn is not None for delta in deltas(model).values())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"dim": MATRICES}, ["'dim'", "32 matrices", "got 32", "use 33 or more"]),
        ({"dim": 5, "sublayers": ["cross_attention"]}, ["'dim'", "8 matrices", "use 9 or more"]),
        ({"dim": 1}, ["'dim'", "got 1"]),
        ({"dim": "20000"}, ["'dim'", "'20000'"]),
        ({"projection_seed": -1}, ["'projection_seed'", "-1"]),
        ({"projection_seed": 2**32}, ["'projection_seed'", str(2**32)]),
        ({"target_modules": ["wi"]}, ["'target_modules'"]),
    ],
    ids=str,
)
def test_invalid_fields_raise_an_error_and_leave_the_model_unchanged(tiny_t5, snapshot, fields, named):
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(ConfigurationError) as error:
        adapters.attach(model, {**SAID, **fields})
    assert all(name in str(error.value) for name in named), str(error.value)
    assert snapshot(model) == before


def test_the_smallest_valid_dim(tiny_t5):
    model = adapters.attach(tiny_t5(), {**SAID, "dim": MATRICES + 1})
    assert adapters.summary(model).total.trainable == MATRICES + 1


@pytest.mark.parametrize(
    ("sizes", "dim"),
    [
        ({"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, None),
        ({"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}, 1_000),
    ],
    ids=["t5-base", "v1.1-small"],
)
def test_parameter_counts_of_real_architectures(sizes, dim):
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    adapters.attach(model, {"kind": "intrinsic_said"} | ({} if dim is None else {"dim": dim}))
    assert adapters.summary(model).total.trainable == (dim or 20_000)
