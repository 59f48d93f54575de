"""A frozen linear layer with a trainable delta, as computed by this library and by others.

Each function returns the adapted product and its trainable parameters for a layer, so that all candidates get the same
x and the same gradient of y. Libraries that are not installed are skipped.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import t3nsor as t3
from adapters import AdaptedLinear, AdapterController, TensorTrainDelta


class Candidate(NamedTuple):
    """An adapted layer: x (T, in) -> y (T, out), and its trainable parameters."""

    product: Callable[[Tensor], Tensor]
    trainable: list[Tensor]

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.trainable)


def frozen(linear: nn.Linear) -> Candidate:
    """Return the lower bound: the layer and the gradient of its input, with nothing trainable."""
    return Candidate(linear, [])


def fully_trained(linear: nn.Linear) -> Candidate:
    """Return the layer with a trainable copy of its weight."""
    weight = linear.weight.detach().clone().requires_grad_()
    return Candidate(lambda x: F.linear(x, weight), [weight])


def tensor_train(linear: nn.Linear, layer: t3.TTLinear, plan: str) -> Candidate:
    """Return a tensor-train delta with one plan."""
    product = lambda x: t3.matmul(x, layer.network(), plan, weight=linear.weight)  # noqa: E731
    return Candidate(product, layer.live_cores())


def adapted(linear: nn.Linear, layer: t3.TTLinear) -> Candidate:
    """Return a tensor-train delta in an adapted layer, with the whole forward pass of a model's layer."""
    host, controller = AdaptedLinear(with_weight_of(linear)), AdapterController()
    controller.add(None, TensorTrainDelta(layer))
    host.beside["tt_lora"] = controller
    return Candidate(host, layer.live_cores())


def core_after_core(linear: nn.Linear, layer: t3.TTLinear) -> Candidate:
    """Return plain code: core after core by einsum, with torch's gradients, added to the layer's output."""
    cores = layer.live_cores()

    def product(x: Tensor) -> Tensor:
        state = x.reshape(x.shape[0], 1, 1, -1)  # (T, M, r, N)
        for core in cores:
            r, _, n, s = core.shape
            state = state.reshape(x.shape[0], state.shape[1], r, n, -1)
            state = torch.einsum("bMrnN,rmns->bMmsN", state, core.to(x.dtype))
            state = state.reshape(x.shape[0], -1, s, state.shape[4])
        return linear(x) + state.reshape(x.shape[0], -1)

    return Candidate(product, cores)


def lora(linear: nn.Linear, rank: int = 8) -> Candidate:
    """Return LoRA as a train of two cores, with the out features in the first and the in features in the last."""
    M, N = linear.out_features, linear.in_features
    layer = t3.TTLinear(N, M, False, tt_rank=rank, raw_shape=((M, 1), (1, N)), device=linear.weight.device)
    return tensor_train(linear, layer, "auto")


def peft(linear: nn.Linear, kind: str, same_dtype: bool = False) -> Candidate:
    """Return LoRA, LoKr, LoHa or IA3 of rank 8 by PEFT, without dropout.

    With a 16-bit weight PEFT keeps adapters, and computes, in float32, unless `same_dtype`.
    """
    from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

    configs = {
        "LoRA": lambda: LoraConfig(r=8, target_modules=["0"], lora_dropout=0.0),
        "LoKr": lambda: LoKrConfig(r=8, target_modules=["0"]),
        "LoHa": lambda: LoHaConfig(r=8, target_modules=["0"]),
        "IA3": lambda: IA3Config(target_modules=["0"], feedforward_modules=[]),
    }
    model = get_peft_model(
        nn.Sequential(with_weight_of(linear)), configs[kind](), autocast_adapter_dtype=not same_dtype
    )
    model = model.to(linear.weight.device)
    return Candidate(model.base_model.model, [p for p in model.parameters() if p.requires_grad])


def tensorly_torch(linear: nn.Linear, layer: t3.TTLinear, implementation: str) -> Candidate:
    """Return tensorly-torch's factorized linear in the block tensor-train format, of the same shape and rank."""
    from tltorch import FactorizedLinear

    (rows, columns), ranks = layer.raw_shape, layer.ranks
    module = FactorizedLinear(
        in_tensorized_features=columns,
        out_tensorized_features=rows,
        bias=False,
        factorization="blocktt",
        rank=list(ranks),
        implementation=implementation,
        dtype=linear.weight.dtype,
        device=linear.weight.device,
    )
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.02)
    return Candidate(lambda x: linear(x) + module(x), list(module.parameters()))


def with_weight_of(linear: nn.Linear) -> nn.Linear:
    """Return a new layer that shares the weight."""
    own = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    own.weight = linear.weight
    return own


def installed(package: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(package) is not None
