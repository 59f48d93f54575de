import pickle

import pytest
import torch
from torch.nn.functional import embedding

import t3nsor as t3


@pytest.mark.parametrize("padding_idx", [None, 0, 7, -1])
@pytest.mark.parametrize("pad_rows", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_lookup_equals_the_table(d, pad_rows, padding_idx, dense_of):
    layer = t3.TTEmbedding(47, 12, d=d, tt_rank=3, pad_rows=pad_rows, padding_idx=padding_idx, dtype=torch.float64)
    table = dense_of(layer.cores)[:47].clone()
    if padding_idx is not None:
        table[padding_idx] = 0
    torch.testing.assert_close(layer(torch.arange(47)), table, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.full(), table, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 1, 3, 2), (0,), (2, 0)])
def test_any_index_shape(shape, dtype):
    layer = t3.TTEmbedding(30, 8, tt_rank=3)
    indices = torch.randint(0, 30, shape, dtype=dtype)
    torch.testing.assert_close(layer(indices), embedding(indices.long(), layer.full()))


def test_gradients_are_those_of_the_dense_lookup():
    layer = t3.TTEmbedding(30, 8, tt_rank=3, padding_idx=3, dtype=torch.float64)
    indices = torch.tensor([[0, 3, 29], [7, 7, 12]])
    weight = torch.randn(2, 3, 8, dtype=torch.float64)
    found = torch.autograd.grad((layer(indices) * weight).sum(), list(layer.cores))
    expected = torch.autograd.grad((embedding(indices, layer.full()) * weight).sum(), list(layer.cores))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_padding_has_no_gradient():
    layer = t3.TTEmbedding(30, 8, tt_rank=3, padding_idx=3)
    layer(torch.tensor([3, 3])).sum().backward()
    assert all(torch.count_nonzero(core.grad) == 0 for core in layer.cores)


def test_pad_rows_pads_the_number_of_rows():
    assert t3.TTEmbedding(47, 12, device="meta").raw_shape[0] == (1, 1, 47)
    assert t3.TTEmbedding(47, 12, pad_rows=True, device="meta").raw_shape[0] == t3.suggest_shape(47, 3)
    assert t3.TTEmbedding(47, 12, raw_shape=((6, 8), (3, 4))).full().shape == (47, 12)


def test_initial_entries_have_the_standard_deviation_of_torchs_embedding():
    samples = torch.stack([t3.TTEmbedding(30, 8, tt_rank=4).full().detach() for _ in range(200)])
    assert samples.square().mean().item() == pytest.approx(1.0, rel=0.1)


def test_a_large_table_is_never_built():
    layer = t3.TTEmbedding(10**9, 2**12, d=6, tt_rank=4)
    assert layer(torch.tensor([0, 10**9 - 1])).shape == (2, 4096)


def test_autocast_keeps_the_dtype_of_the_cores():
    layer = t3.TTEmbedding(30, 8, tt_rank=3)
    indices = torch.arange(30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = layer(indices)
    torch.testing.assert_close(rows, layer(indices), rtol=0, atol=0)


def test_meta_assign_pickle_and_compile():
    source = t3.TTEmbedding(30, 8, tt_rank=3, padding_idx=2)
    layer = t3.TTEmbedding(30, 8, tt_rank=3, padding_idx=2, device="meta")
    layer.load_state_dict(source.state_dict(), assign=True)
    indices = torch.arange(30)
    compiled = torch.compile(source, backend="aot_eager", fullgraph=True)
    for other in (layer, pickle.loads(pickle.dumps(source)), compiled):
        torch.testing.assert_close(other(indices), source(indices))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_embeddings": 0}, "num_embeddings must be at least 1"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1"),
        ({"raw_shape": ((5, 5), (2, 4))}, "must multiply to num_embeddings = 30; got .5, 5. with the product 25"),
        ({"raw_shape": ((5, 6), (2, 3))}, "must multiply to embedding_dim = 8"),
        ({"padding_idx": 30}, "padding_idx must lie between -30 and 29; got 30"),
        ({"init": "normal"}, "init must be one of"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        t3.TTEmbedding(**{"num_embeddings": 30, "embedding_dim": 8, **arguments})


def test_invalid_indices_raise():
    layer = t3.TTEmbedding(30, 8, pad_rows=True)
    for bad in (30, -1):
        with pytest.raises(IndexError, match=f"between 0 and 29; got {bad}"):
            layer(torch.tensor([0, bad]))
    with pytest.raises(TypeError, match="indices must be an int32 or int64 tensor; got"):
        layer(torch.tensor([0.0]))
    with pytest.raises(TypeError, match="got list"):
        layer([0])
