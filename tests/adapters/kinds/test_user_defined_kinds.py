"""User-defined kinds: a configuration with the required fields, and a module."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import adapters
import t3nsor as t3


@pytest.fixture
def attach_custom(tiny_t5, monkeypatch):
    """A function that attaches a user-defined kind beside each linear wi of a tiny T5; its argument builds a module."""
    monkeypatch.setattr(adapters.AdapterConfig, "kinds", dict(adapters.AdapterConfig.kinds))

    def attach(build_module):
        @dataclass(frozen=True, kw_only=True)
        class CustomConfig(adapters.AdapterConfig, kind="custom"):
            position = "beside"
            target_modules: tuple[str, ...] = ("wi",)
            sublayers: tuple[str, ...] = ("feed_forward",)

            def build(self, in_features, out_features):
                return build_module(in_features, out_features)

        model = adapters.attach(tiny_t5(), {"kind": "custom"})
        hosts = [path for path, module in model.named_modules() if isinstance(module, adapters.AdaptedLinear)]
        assert len(hosts) == 4
        assert all(path.endswith("DenseReluDense.wi") for path in hosts)
        return model

    return attach


def test_a_user_defined_kind_needs_no_field_for_shared_cores(attach_custom, tiny_t5, logits):
    model = attach_custom(lambda n, m: adapters.TensorTrainDelta(t3.TTLinear(n, m, bias=False, zero_core=0)))
    assert torch.equal(logits(model), logits(tiny_t5()))


def test_a_delta_needs_only_delta_weight_to_be_merged(attach_custom, tiny_t5, logits):
    class Diagonal(adapters.LinearDelta):
        """y += (d * x, 0)."""

        def __init__(self, in_features, out_features):
            super().__init__()
            self.padding = out_features - in_features
            self.diagonal = torch.nn.Parameter(torch.zeros(in_features))

        def reset_parameters(self):
            torch.nn.init.zeros_(self.diagonal)

        def forward(self, x):
            return F.pad(self.diagonal * x, (0, self.padding))

        def delta_weight(self):
            return F.pad(torch.diag(self.diagonal), (0, 0, 0, self.padding))

    model = attach_custom(Diagonal)
    with torch.no_grad():
        for parameter in adapters.freezing.adapter_parameters(model).values():
            parameter.normal_()
    unmerged = logits(model)
    assert not torch.allclose(unmerged, logits(tiny_t5()), atol=1e-3)
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-4, atol=1e-5)
