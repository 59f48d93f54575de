"""The layer norms of base models, and how each class uses its weight.

class             y, from x (..., dim)                   weight of the map, (dim,)    bias of the map
nn.LayerNorm      w (x - mean(x)) / std(x) + b           w                            b
an RMS norm       w x / rms(x)                           w                            none
Gemma's           (1 + w) x / rms(x)                     1 + w                        none

rms(x)^2 = mean(x^2) + eps,    std(x)^2 = mean((x - mean(x))^2) + eps = rms(x - mean(x))^2
"""

import torch
from torch import Tensor, nn

AROUND_ONE = (
    *("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm", "RecurrentGemmaRMSNorm", "T5GemmaRMSNorm", "T5Gemma2RMSNorm"),
    *("VaultGemmaRMSNorm", "Qwen3NextRMSNorm", "Qwen3_5RMSNorm", "Qwen3_5MoeRMSNorm", "Qwen4ExpTextRMSNorm"),
    *("MiniMaxM3VLRMSNorm", "MuseGlimmerTextCenteredRMSNorm", "MuseSparkTextCenteredRMSNorm"),
    *("MuseSparkTextInputScaledRMSNorm", "Step3p7RMSNorm", "NemotronLayerNorm1P", "VideoPrismLayerNorm"),
)
"""Classes of transformers that store the weight of the map minus one."""
EPSILONS = ("variance_epsilon", "eps")
"""Names of eps."""


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a layer norm with a weight (dim,)."""
    name = type(module).__name__
    weight = getattr(module, "weight", None)
    known = isinstance(module, nn.LayerNorm | nn.RMSNorm) or name.endswith(("RMSNorm", "LayerNorm"))
    return known and weight is not None and weight.dim() == 1


def epsilon(norm: nn.Module) -> float:
    """eps of a layer norm; that of its dtype if it has none, as in ``nn.RMSNorm``."""
    found = next((getattr(norm, name) for name in EPSILONS if hasattr(norm, name)), None)
    return torch.finfo(norm.weight.dtype).eps if found is None else found


def offset(norm_class: type[nn.Module]) -> int:
    """What the map adds to the stored weight: 1 in Gemma's classes, else 0."""
    return int(norm_class.__name__ in AROUND_ONE)


def centred(norm_class: type[nn.Module], x: Tensor) -> Tensor:
    """What a norm divides by its root mean square: x, in an ``nn.LayerNorm`` without its mean, in float32 at least."""
    if not issubclass(norm_class, nn.LayerNorm):
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide - wide.mean(-1, keepdim=True)  # (..., dim)


@torch.no_grad()
def computes_as_its_class(norm: nn.Module) -> bool:
    """Whether a norm computes for one x what the table above has for its class; yes for one without memory."""
    weight, bias = norm.weight, getattr(norm, "bias", None)
    if weight.is_meta:
        return True
    x = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device) ** 3
    z = centred(type(norm), x).float()
    expected = (weight.float() + offset(type(norm))) * z / (z.square().mean() + epsilon(norm)).sqrt()
    expected = expected if bias is None else expected + bias.float()
    return torch.allclose(norm(x).float(), expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))
