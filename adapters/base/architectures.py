"""The model architectures that adapters can be attached to, one table entry each.

    stack      a module with a list of blocks                   encoder
    block      one entry of that list                           encoder.block.0
    sublayer   attention or feed-forward, with its norm         encoder.block.0.layer.1
    linear     a weight matrix of the sublayer                  encoder.block.0.layer.1.DenseReluDense.wi

A model is recognised by these names and not by its class, so a model that wraps a known one is recognised too. To
support another architecture, add an entry to ``ARCHITECTURES``; nothing else names the modules of a particular model.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm


@dataclass(frozen=True)
class SublayerLayout:
    """How one kind of sublayer is laid out.

    Args:
        kind: "self_attention", "cross_attention" or "feed_forward".
        module: name of the module that computes it.
        linears: paths of its linears below ``module``; a model may have only some of them.
        output: the linear whose result is added to the hidden states.
        norm: name of its layer norm, a sibling of ``module``.
    """

    kind: str
    module: str
    linears: tuple[str, ...]
    output: str
    norm: str


@dataclass(frozen=True)
class Architecture:
    """Where the stacks, blocks, sublayers, linears, norms and the head of a model are.

    Args:
        name: as it appears in messages.
        model_types: values of ``config.model_type``.
        stacks: names of the stacks; the head belongs to the last one.
        blocks: name of the list of blocks in a stack.
        sublayers: name of the list of sublayers in a block; None where a block holds their modules itself.
        layouts: one for each kind of sublayer.
        final_norm: name of a stack's last layer norm.
        head: name of the output projection, a sibling of the stacks.
        key_value_linears: the linears that compute keys and values.
        norm_classes: classes of its layer norms, with a ``weight`` (dim,) and a ``variance_epsilon``.
        config_keys: keys of the model's configuration that the shapes of adapters depend on.
    """

    name: str
    model_types: tuple[str, ...]
    stacks: tuple[str, ...]
    blocks: str
    sublayers: str | None
    layouts: tuple[SublayerLayout, ...]
    final_norm: str
    head: str
    key_value_linears: tuple[str, ...]
    norm_classes: tuple[type[nn.Module], ...]
    config_keys: tuple[str, ...]

    def feed_forward(self) -> SublayerLayout:
        """The layout of the feed-forward sublayers."""
        return next(layout for layout in self.layouts if layout.kind == "feed_forward")

    def is_stack(self, path: str, module: nn.Module) -> bool:
        """Whether the module at ``path`` is one of the stacks."""
        return path.rpartition(".")[2] in self.stacks and isinstance(getattr(module, self.blocks, None), nn.ModuleList)


T5 = Architecture(
    name="T5",
    model_types=("t5", "mt5", "umt5"),
    stacks=("encoder", "decoder"),
    blocks="block",
    sublayers="layer",
    layouts=(
        SublayerLayout("self_attention", "SelfAttention", ("q", "k", "v", "o"), "o", "layer_norm"),
        SublayerLayout("cross_attention", "EncDecAttention", ("q", "k", "v", "o"), "o", "layer_norm"),
        SublayerLayout("feed_forward", "DenseReluDense", ("wi", "wi_0", "wi_1", "wo"), "wo", "layer_norm"),
    ),
    final_norm="final_layer_norm",
    head="lm_head",
    key_value_linears=("k", "v"),
    norm_classes=(T5LayerNorm,),
    config_keys=(
        "model_type",
        "d_model",
        "d_kv",
        "d_ff",
        "num_heads",
        "num_layers",
        "num_decoder_layers",
        "feed_forward_proj",
    ),
)

ARCHITECTURES = (T5,)
"""Every supported architecture."""
NORM_CLASSES = tuple(dict.fromkeys(norm for architecture in ARCHITECTURES for norm in architecture.norm_classes))
"""The classes of layer norms that can be adapted."""


def architecture_of(model: nn.Module) -> Architecture | None:
    """The entry that describes ``model``, or None if it has no stack of any entry."""
    modules = list(model.named_modules())
    return next((a for a in ARCHITECTURES if any(a.is_stack(path, module) for path, module in modules)), None)


def architecture_values(config: Any) -> dict[str, Any]:
    """The values in a model's configuration that its adapters depend on; every known key for an unknown model type."""
    model_type = getattr(config, "model_type", None)
    entries = [entry for entry in ARCHITECTURES if model_type in entry.model_types] or ARCHITECTURES
    keys = dict.fromkeys(key for entry in entries for key in entry.config_keys)
    return {key: getattr(config, key) for key in keys if hasattr(config, key)}


def feed_forward_linears() -> tuple[str, ...]:
    """Names of the linears in the feed-forward sublayers of every architecture."""
    return tuple(dict.fromkeys(name for entry in ARCHITECTURES for name in entry.feed_forward().linears))
