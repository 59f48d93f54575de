import copy
import pickle

import pytest
import torch
from torch import nn

import t3nsor as t3


class Pair(nn.Module):
    """Two layers that share core 1, which a ParameterDict owns."""

    def __init__(self, device=None):
        super().__init__()
        self.shared = nn.ParameterDict()
        self.first = t3.TTLinear(24, 36, tt_rank=3, bias=False, device=device)
        self.second = t3.TTLinear(24, 36, tt_rank=3, bias=False, device=device)
        self.shared["core"] = nn.Parameter(self.first.cores[1].detach().clone())
        self.first.share(1, self.shared, "core")
        self.second.share(-2, self.shared, "core")

    def forward(self, x):
        return self.first(x) - self.second(x)


def assert_shares(pair):
    """Check that both layers read the current Parameter of the owner."""
    for layer in (pair.first, pair.second):
        assert layer.cores[1] is None
        assert layer.live_cores()[1] is pair.shared["core"]
    with torch.no_grad():
        pair.shared["core"].zero_()
    assert torch.count_nonzero(pair.first.full()) == 0
    assert torch.count_nonzero(pair.second.full()) == 0


def test_a_shared_core_has_one_owner():
    pair = Pair()
    names = ["shared.core", *(f"{layer}.cores.{k}" for layer in ("first", "second") for k in (0, 2))]
    assert sorted(pair.state_dict()) == sorted(names)
    assert sorted(name for name, _ in pair.named_parameters(remove_duplicate=False)) == sorted(names)
    assert [name for name, _ in pair.named_modules() if name.startswith("first")] == ["first", "first.cores"]
    assert_shares(pair)


def test_a_slice_of_the_cores_holds_the_same_parameters():
    cores = t3.TTLinear(24, 36).cores
    assert [id(core) for core in cores[1:]] == [id(cores[1]), id(cores[2])]


def test_cores_are_read_by_key():
    """DeepSpeed's ZeRO-3 replaces the dictionary by one that gathers a Parameter when its entry is read."""

    class Gathering(dict):
        def __getitem__(self, key):
            return "gathered " + key

    layer = t3.TTLinear(24, 36, tt_rank=3)
    layer.cores._parameters = Gathering(layer.cores._parameters)
    assert layer.live_cores() == ["gathered 0", "gathered 1", "gathered 2"]


def test_gradients_of_both_layers_meet_in_the_shared_core():
    pair = Pair()
    x = torch.randn(5, 24)
    pair.first(x).sum().backward()
    first = pair.shared["core"].grad.clone()
    pair.shared["core"].grad = None
    pair.second(x).sum().backward()
    second = pair.shared["core"].grad.clone()
    pair.shared["core"].grad = None
    (pair.first(x) + pair.second(x)).sum().backward()
    torch.testing.assert_close(pair.shared["core"].grad, first + second)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_the_model_shares_within_itself(copied):
    pair = Pair()
    other = copied(pair)
    x = torch.randn(5, 24)
    torch.testing.assert_close(other(x), pair(x), rtol=0, atol=0)
    assert other.shared["core"] is not pair.shared["core"]
    assert_shares(other)
    assert torch.count_nonzero(pair.shared["core"]) > 0


@pytest.mark.parametrize(("assign", "device"), [(False, None), (True, None), (True, "meta")])
def test_loading_the_owner_takes_effect_in_both_layers(assign, device):
    source, pair = Pair(), Pair(device)
    pair.load_state_dict(source.state_dict(), assign=assign)
    x = torch.randn(5, 24)
    torch.testing.assert_close(pair(x), source(x), rtol=0, atol=0)
    assert_shares(pair)


def test_moving_the_model_moves_the_shared_core():
    pair = Pair().double()
    assert pair.first.full().dtype == torch.float64
    assert_shares(pair)


def test_reset_parameters_fills_the_shared_core_too():
    pair = Pair("meta").to_empty(device="cpu")
    with torch.no_grad():
        pair.shared["core"].fill_(float("nan"))
    pair.first.reset_parameters()
    assert pair.first.full().isfinite().all()
    assert_shares(pair)


@pytest.mark.parametrize(
    "module", [t3.TTBias(24, tt_rank=2), t3.TTLayerNorm(24, tt_rank=2), t3.TTEmbedding(24, 6, tt_rank=2)]
)
def test_every_module_can_share(module):
    module = copy.deepcopy(module)
    expected = module.full().detach()
    owner = nn.ParameterDict({"core": module.cores[0].detach().clone()})
    module.share(0, owner, "core")
    torch.testing.assert_close(module.full(), expected, rtol=0, atol=0)
    module.full().sum().backward()
    assert owner["core"].grad is not None


@pytest.mark.parametrize(
    "layer", [t3.TTLinear(24, 36, tt_rank=3, frozen_cores=[1]), t3.TTLayerNorm(24, frozen_cores=[1])]
)
def test_sharing_a_frozen_core_freezes_it(layer):
    layer = copy.deepcopy(layer)
    owner = nn.ParameterDict({"core": torch.zeros(layer.core_shapes[1])})
    layer.share(1, owner, "core")
    assert not owner["core"].requires_grad
    owner["core"] = nn.Parameter(torch.zeros(layer.core_shapes[1]))
    layer.freeze_cores()
    assert [core.requires_grad for core in layer.live_cores()] == [True, False, True]


OWNER = nn.ParameterDict({"core": torch.zeros(6, 3, 3, 12), "small": torch.zeros(1, 2)})
BAD_CALLS = [
    (5, OWNER, "core", ValueError, "slot must lie between -3 and 2; got 5"),
    ("1", OWNER, "core", TypeError, "slot must be an integer; got '1'"),
    (1, {"core": torch.zeros(6, 3, 3, 12)}, "core", TypeError, "owner must be an nn.ParameterDict; got a dict"),
    (1, OWNER, "other", KeyError, "got one without 'other'"),
    (1, OWNER, "small", ValueError, r"the core that it replaces, \(6, 3, 3, 8\); got 'small' with \(1, 2\)"),
    (2, OWNER, "core", ValueError, "got core 2: take it out of disabled_cores"),
]


@pytest.mark.parametrize(("slot", "owner", "key", "error", "message"), BAD_CALLS)
def test_invalid_sharing_raises(slot, owner, key, error, message):
    layer = t3.TTLinear(24, 36, disabled_cores=[2])
    with pytest.raises(error, match=message):
        layer.share(slot, owner, key)
    assert all(core is not None for core in layer.cores)
