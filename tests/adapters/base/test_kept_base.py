"""Base tensors that are replaced and put back, in a host of attached adapters and in a layer of the PEFT tuner."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters import AdaptedLinear, MergeError
from adapters.base.kept_base import check_finite, check_linear_adapter
from adapters.base.linear_layers import as_out_in, check_linear, features
from adapters.peft import TensorTrainConfig, TensorTrainPeftLinear


def adapted_linear(bias):
    return AdaptedLinear(nn.Linear(4, 6, bias=bias))


def peft_linear(bias):
    return TensorTrainPeftLinear(nn.Linear(4, 6, bias=bias), "default", TensorTrainConfig(rank=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [adapted_linear, peft_linear])
def test_restored_base_has_the_same_bits_in_the_same_storage(make, bias, dtype):
    module = make(bias).to(dtype)
    base = module.base_module()
    before = {name: p.detach().clone() for name, p in base.named_parameters(recurse=False)}
    storage = {name: p.data_ptr() for name, p in base.named_parameters(recurse=False)}
    merged = {"weight": torch.randn(6, 4, dtype=dtype), "bias": torch.randn(6, dtype=dtype)}
    for _ in range(2):  # the second time while it is replaced already
        module.replace_base(merged)
        assert module.is_merged
        assert torch.equal(base.weight, merged["weight"])
        assert torch.equal(base.bias, merged["bias"])
        assert not base.bias.requires_grad or bias
        assert torch.equal(module.base_tensor("weight"), before["weight"])
        assert (module.base_tensor("bias") is None) == (not bias)
    module.restore_base()
    module.restore_base()
    assert not module.is_merged
    assert {name: p.data_ptr() for name, p in base.named_parameters(recurse=False)} == storage
    assert all(torch.equal(getattr(base, name), tensor) for name, tensor in before.items())
    assert (base.bias is not None) == bias


@pytest.mark.parametrize("make", [adapted_linear, peft_linear])
def test_kept_tensors_follow_a_change_of_dtype(make):
    module = make(False)
    weight = module.base_module().weight.detach().clone()
    module.replace_base({"weight": torch.zeros(6, 4), "bias": torch.ones(6)})
    module.double()
    module.restore_base()
    assert torch.equal(module.base_module().weight, weight.double())
    assert module.base_module().bias is None


@pytest.mark.parametrize(("entry", "finite"), [(1.0, True), (float("inf"), False), (float("nan"), False)])
def test_check_finite_names_the_place(entry, finite):
    tensors = [torch.ones(3), None, torch.tensor([0.0, entry])]
    if finite:
        check_finite(tensors, "at wi")
    else:
        with pytest.raises(MergeError, match=r"A merged weight is finite; got infinities or NaN at wi: .*bfloat16\.$"):
            check_finite(tensors, "at wi")


def test_check_linear_adapter_gives_the_reason():
    adapter = nn.Module()
    adapter.is_linear = True
    check_linear_adapter(adapter, "wi")
    adapter.is_linear, adapter.not_linear_because = False, "bends"
    with pytest.raises(MergeError, match="got wi, which bends: evaluate it unmerged"):
        check_linear_adapter(adapter, "wi")


def test_conv1d_stores_the_transpose():
    conv = Conv1D(6, 4)
    assert features(conv) == features(nn.Linear(4, 6)) == (4, 6)
    x = torch.randn(3, 4)
    torch.testing.assert_close(x @ as_out_in(conv, conv.weight).T + conv.bias, conv(x))
    check_linear(conv, "h.0.attn.c_attn")
    with pytest.raises(TypeError, match=r"got a Quantised at wi: .*without quantisation"):
        check_linear(type("Quantised", (Conv1D,), {})(6, 4), "wi")
