import pytest
import torch

import t3nsor as t3


@pytest.mark.parametrize("d", [1, 2, 3, 6])
@pytest.mark.parametrize("rank", [1, 3, 100])
def test_is_exactly_zero_initially_and_fits_any_target_of_its_rank(d, rank):
    torch.manual_seed(0)
    bias = t3.TTBias(64, d=d, tt_rank=rank, dtype=torch.float64)
    assert torch.equal(bias.full(), torch.zeros(64, dtype=torch.float64))
    target = t3.random_matrix(bias.raw_shape, rank, dtype=torch.float64).full()[:, 0]
    (bias.full() * target).sum().backward()
    assert bias.cores[-1].grad.abs().sum() > 0


def test_reaches_a_vector_of_full_rank_from_zero():
    torch.manual_seed(0)
    bias = t3.TTBias(36, d=2, tt_rank=6, dtype=torch.float64)
    target = torch.randn(36, dtype=torch.float64)
    optimizer = torch.optim.Adam(bias.parameters(), lr=0.03)
    for _ in range(600):
        optimizer.zero_grad()
        (bias.full() - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(bias.full().detach(), target, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_forward_adds_the_vector_in_the_dtype_of_x(dtype, dense_of):
    bias = t3.TTBias(24, tt_rank=2, init=1.0)
    x = torch.randn(2, 5, 24).to(dtype)
    y = bias(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, x + dense_of(bias.cores)[:, 0].to(dtype), rtol=0.02, atol=0.02)


def test_meta_assign_round_trip():
    source, bias = t3.TTBias(24, init=0.5), t3.TTBias(24, device="meta")
    bias.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(bias.full(), source.full())


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), ()])
def test_invalid_input_raises(shape):
    with pytest.raises(ValueError, match="The last dimension of x must be 24; got the shape"):
        t3.TTBias(24)(torch.ones(shape))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": 0}, ValueError, "features must be at least 1"),
        ({"raw_shape": (5, 5)}, ValueError, "must multiply to features = 24"),
        ({"raw_shape": 24}, TypeError, "raw_shape must be a sequence of integers; got 24"),
        ({"tt_rank": [9, 2]}, ValueError, "must be at most 2"),
        ({"init": "uniform"}, ValueError, "init must be one of"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        t3.TTBias(**{"features": 24, **arguments})
