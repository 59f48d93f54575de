"""Parents that read the weight of a linear themselves instead of calling it, so that a delta there has no effect.

    y = F.linear(x, self.out_proj.weight)        in the parent's forward: the linear's own forward is never called

In a merged model the weight contains the delta; training and unmerged evaluation would silently be the base's. So
these places are refused. Parents that are not listed are found by ``adapters.acting`` in a forward pass.
"""

import torch
from torch import nn

from adapters.validation import ConfigurationError

MAMBA = ("x_proj", "dt_proj", "out_proj")
RELATIVE = ("rel_pos_bias", "rel_pos_x_bias", "rel_pos_y_bias")

TORCH_READERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.MultiheadAttention: ("out_proj",),
    **({nn.LinearCrossEntropyLoss: ("linear",)} if hasattr(nn, "LinearCrossEntropyLoss") else {}),  # new in torch 2.13
}
TRANSFORMERS_READERS: dict[str, tuple[str, ...]] = {
    "BambaMixer": ("out_proj",),
    "ConditionalDetrMHAttentionMap": ("k_proj",),
    "DabDetrMHAttentionMap": ("k_linear",),
    "DetrMHAttentionMap": ("k_proj",),
    "DisentangledSelfAttention": ("in_proj",),  # DeBERTa's; version 2 and 3 have another
    "FalconH1Mixer": ("out_proj",),
    "FalconMambaMixer": MAMBA,
    "Gemma4AssistantForCausalLM": ("lm_head",),
    "Gemma4UnifiedAssistantForCausalLM": ("lm_head",),
    "GraniteMoeHybridMambaLayer": ("out_proj",),
    "JambaMambaMixer": ("dt_proj",),
    "LSHSelfAttention": ("query_key", "value"),
    "LayoutLMv2Encoder": RELATIVE,
    "LayoutLMv3Encoder": RELATIVE,
    "LongcatFlashTopkRouter": ("classifier",),
    "Mamba2Mixer": ("out_proj",),
    "MambaMixer": MAMBA,
    "MaskFormerDetrMHAttentionMap": ("k_proj",),
    "MobileBertLMPredictionHead": ("dense", "decoder"),
    "NemotronHMamba2Mixer": ("out_proj",),
    "NeoMMEForMaskedLM": ("unembedding_projection",),
    "PPDocLayoutV2ReadingOrderEncoder": RELATIVE,
    "TDNNLayer": ("kernel",),
    "WavLMAttention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "Zamba2MambaMixer": ("out_proj",),
}
"""Linears by the class of their parent; some of the parents call them on a CPU and read them in a fused kernel."""

FAST_PATH_FIX = "call torch.backends.mha.set_fastpath_enabled(False) first, or leave it out"


def weight_reader(model: nn.Module, path: str) -> tuple[str, str] | None:
    """Who reads the weight of the linear at ``path``, and how to fix that; None if it is called, as far as is known."""
    above, _, name = path.rpartition(".")
    parent = model.get_submodule(above)
    if isinstance(parent, nn.TransformerEncoderLayer) and name in ("linear1", "linear2") and _has_fast_path(parent):
        return f"a {type(parent).__name__} reads in its fast path for evaluation", FAST_PATH_FIX
    known = [names for cls, names in TORCH_READERS.items() if isinstance(parent, cls)]
    known += [
        TRANSFORMERS_READERS.get(cls.__name__, ())
        for cls in type(parent).__mro__
        if cls.__module__.startswith("transformers.")
    ]
    if any(name in names for names in known):
        return f"a {type(parent).__name__} reads itself", "leave it out"
    return None


def check_is_called(model: nn.Module, path: str) -> None:
    """Check that the linear at ``path`` can have deltas of the PEFT tuner.

    Raises:
        ConfigurationError: its weight is read instead.
    """
    if (reader := weight_reader(model, path)) is not None:
        reads, fix = reader
        raise ConfigurationError(
            f"Key 'target_modules' must name linears that their parents call; got {path}, whose weight {reads}: {fix} "
            "with exclude_modules."
        )


def _has_fast_path(layer: nn.TransformerEncoderLayer) -> bool:
    """Whether the layer ever computes in evaluation without calling its children: the conditions of its own forward."""
    attention = layer.self_attn
    return (
        type(layer).forward is nn.TransformerEncoderLayer.forward
        and torch.backends.mha.get_fastpath_enabled()
        and attention.batch_first
        and attention.in_proj_bias is not None
        and attention._qkv_same_embed_dim
        and bool(layer.activation_relu_or_gelu)
        and layer.norm1.eps == layer.norm2.eps
        and attention.num_heads % 2 == 0
    )
