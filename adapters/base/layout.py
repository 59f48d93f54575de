"""How the sublayers of an architecture are laid out, and whether a model is laid out like that.

stack      a module with a list of blocks              encoder                 model            transformer
block      one entry of that list                      encoder.block.0         model.layers.0   transformer.h.0
sublayer   attention or feed-forward, with its norms   ...layer.0              (in the block)   (in the block)
linear     a weight matrix, known by its role          ...SelfAttention.q      self_attn.q_proj attn.c_attn

role    q, k, v, o; qkv         attention: queries, keys, values and output; the first three as one linear
        in, gate, out; gate_in  feed-forward: out(in(x)), or out(act(gate(x)) * in(x)); gate and in as one linear
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

ROLES = ("q", "k", "v", "o", "qkv", "in", "gate", "out", "gate_in")
"""The roles of linears."""
OUTPUT_ROLES = ("o", "out")
"""The roles of the linear whose result a sublayer adds to the hidden states."""
ANY_NAME = "*"
"""Stands for every name of a stack's module."""


@dataclass(frozen=True)
class SublayerLayout:
    """How one kind of sublayer is laid out.

    Args:
        kind: "self_attention", "cross_attention" or "feed_forward".
        linears: role and path of each linear, below the module that holds the sublayer.
        norms: paths of its layer norms, likewise.
        optional: paths of linears that a model may lack.
    """

    kind: str
    linears: tuple[tuple[str, str], ...]
    norms: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        """The path of the linear whose result is added to the hidden states."""
        return next(path for role, path in self.linears if role in OUTPUT_ROLES)

    def is_held_by(self, holder: nn.Module) -> bool:
        """Whether this module has all the linears and norms."""
        paths = {path for path, _ in holder.named_modules()}
        needed = {*(path for _, path in self.linears if path not in self.optional), *self.norms}
        return needed <= paths


@dataclass(frozen=True)
class Architecture:
    """Where the stacks, blocks, sublayers, linears and norms of a model are.

    Args:
        name: as it appears in messages.
        model_types: values of ``config.model_type``.
        stacks: "encoder" or "decoder" by the name of the stack's module, or of ``ANY_NAME`` if the name does not tell;
            a BERT with ``config.is_decoder`` is a decoder under any name.
        blocks: name of the list of blocks in a stack.
        sublayers: name of the list of sublayers in a block; None where a block holds their modules itself.
        layouts: one for each kind of sublayer; only a decoder over an encoder has cross-attention.
        final_norms: names of a stack's last layer norm, which may have another one in each model type, or none.
        embedding_norm: path of the layer norm after the embeddings, in the stack or beside it; "" where none has one.
        supports_prompts: whether its encoder accepts an input longer than its tokens.
        config_keys: keys of the model's configuration that the shapes of adapters depend on.
    """

    name: str
    model_types: tuple[str, ...]
    stacks: dict[str, str]
    blocks: str
    layouts: tuple[SublayerLayout, ...]
    config_keys: tuple[str, ...]
    final_norms: tuple[str, ...] = ()
    embedding_norm: str = ""
    sublayers: str | None = None
    supports_prompts: bool = False

    def stack_name(self, path: str, module: nn.Module) -> str | None:
        """ "encoder" or "decoder" for the module at ``path``; None if its name does not fit."""
        if ANY_NAME in self.stacks and getattr(getattr(module, "config", None), "is_decoder", False):
            return "decoder"
        return self.stacks.get(path.rpartition(".")[2], self.stacks.get(ANY_NAME))

    def found_stacks(self, model: nn.Module) -> list[tuple[str, nn.Module]] | None:
        """The stacks of ``model`` with their paths; None if it is not laid out like this.

        A model with a stack that is laid out so in part, such as one with other feed-forward sublayers in some blocks,
        is not: adapters would be left out there silently.
        """
        found = []
        for path, module in model.named_modules():
            blocks = getattr(module, self.blocks, None)
            if self.stack_name(path, module) is None or not isinstance(blocks, nn.ModuleList) or not len(blocks):
                continue
            fits = [self._is_block(block) for block in blocks]
            if all(fits):
                found.append((path, module))
            elif any(fits) or ANY_NAME not in self.stacks:
                return None
        return found or None

    def held(self, block: nn.Module) -> Iterator[tuple[str, SublayerLayout]]:
        """The sublayers of a block: the path of the module that holds each, below the block, and its layout."""
        for path, holder in self._holders(block):
            yield from ((path, layout) for layout in self.layouts if layout.is_held_by(holder))

    def _holders(self, block: nn.Module) -> list[tuple[str, nn.Module]]:
        if self.sublayers is None:
            return [("", block)]
        return [(f"{self.sublayers}.{k}", holder) for k, holder in enumerate(getattr(block, self.sublayers, ()))]

    def _is_block(self, block: nn.Module) -> bool:
        """Whether each of the sublayers is one of ``layouts``, and self-attention and feed-forward are among them."""
        kinds = [layout.kind for _, layout in self.held(block)]
        expected = self.sublayers is None or len(kinds) == len(self._holders(block))
        return expected and {"self_attention", "feed_forward"} <= set(kinds)
