"""LoopedModel: a stack of blocks M, applied b times, with the input P in each loop (Yang et al. 2023, 2311.12424).

    P            (batch, length, E)      the inputs, read in
    Y_0 = 0      (batch, length, E)      the state; without injection Y_0 = P
    Y_t = M(Y_{t-1} + P), t = 1..b       the last T of them with a graph, the others without
    read-out     (batch, length, out)    of each of the last T states

The read-in has torch's default initialization: with smaller values the injected input is lost beside the state, whose
entries are about 1 after the stack's final norm.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from adapters.base.loops import LoopCounter
from adapters.validation import refuse
from third_party.models.looped.configuration import WHERE, LoopedConfig
from third_party.models.looped.masks import attention_bias, kept_positions


@dataclass
class LoopedOutput(ModelOutput):
    """What the model returns.

    Args:
        loss: of a language model with labels.
        logits: (batch, length, out), of the last loop.
        by_loop: (loops, batch, length, out), of the loops that were read out, the last one last.
        loops: how many were run; fewer than asked for if the state had settled.
        states: (loops, batch, length, E), if they were asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    by_loop: Tensor | None = None
    loops: int | None = None
    states: Tensor | None = None


class LoopedModel(PreTrainedModel):
    """A looped transformer on vectors or token ids; see the head of this file.

    Args:
        config: its sizes and options.
    """

    config_class = LoopedConfig
    base_model_prefix = "stack"
    main_input_name = "inputs"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    parameter_groups: ClassVar[Mapping[str, str]] = {
        "loop_scale": "scale per loop",
        "injection_scale": "injection scale",
    }
    """What ``adapters.summary`` calls parameters that belong neither to the stack nor to its ends."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        size, injection = config.hidden_size, config.option("injection")
        on_tokens = config.input_size is None
        self.read_in = nn.Embedding(config.vocab_size, size) if on_tokens else nn.Linear(config.input_size, size)
        self.stack = AutoModel.from_config(stack_config(config), attn_implementation=config._attn_implementation)
        self._freeze_unused_row()
        self.read_out = nn.Linear(size, config.output_size or config.vocab_size)
        self.injection_scale = nn.Parameter(torch.ones(())) if injection.learnable_scale else None
        if config.trained_loops is None:
            config.trained_loops = config.option("loops").num_loops
        loops = config.trained_loops
        self.stack.loops = LoopCounter(loops)  # the loop it is in, for deltas that differ between loops
        self.loop_scale = nn.Parameter(torch.ones(loops, size)) if injection.scale_per_loop else None
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """As in transformers, which makes all that it loads trainable."""
        loaded = super().from_pretrained(*args, **options)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze_unused_row()
        return loaded

    def _freeze_unused_row(self) -> None:
        """Of the stack's own embedding, in whose place the states are given."""
        self.stack.get_input_embeddings().weight.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.read_in

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.read_in = value

    def get_output_embeddings(self) -> nn.Linear | None:
        """The read-out, where it gives logits of tokens."""
        config = self.config
        return self.read_out if config.input_size is None and config.output_size is None else None

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.read_out = value

    def resize_token_embeddings(self, *args: Any, **options: Any) -> nn.Module:
        if self.config.input_size is not None:
            refuse("vocab_size", "is that of tokens", "vectors", "make a model with another input_size", WHERE)
        return super().resize_token_embeddings(*args, **options)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every module as torch and the stack have initialised it."""

    def forward(
        self,
        inputs: Tensor,
        num_loops: int | None = None,
        read_last: int | None = None,
        output_states: bool = False,
    ) -> LoopedOutput:
        """Run the loops.

        Args:
            inputs: vectors (batch, length, input_size), or token ids (batch, length).
            num_loops: b; None for that of the configuration.
            read_last: how many of the last loops are read out; None for the window T in training, all in evaluation.
            output_states: whether the states of these loops are returned.

        Raises:
            ConfigurationError: a number is not positive, or the input is longer than ``positions.number``.
        """
        for key, value in (("num_loops", num_loops), ("read_last", read_last)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                refuse(key, "is a positive integer", repr(value), "write at least 1, or leave it out", WHERE)
        self.config.option("positions").check_length(inputs.shape[1])
        options = self.config.option("loops")
        count = options.num_loops if num_loops is None else num_loops
        window = min(options.window or count, count)
        read = min(read_last or (window if self.training else count), count)
        injected = self.read_in(inputs)  # P (batch, length, E)
        bias = self.attention_bias(injected)
        state = injected if self.config.option("injection").kind == "none" else torch.zeros_like(injected)
        states, run = [], 0
        for loop in range(count):
            with torch.no_grad() if loop < count - window else contextlib.nullcontext():
                before, state = state, self.loop(state, injected, loop, bias)
            run = loop + 1
            if run > count - read:
                states.append(state)
            if options.stop_tolerance and not self.training and settled(before, state, options.stop_tolerance):
                states = states or [state]
                break
        by_loop = torch.stack([self.read_out(state) for state in states])
        kept = torch.stack(states) if output_states else None
        return LoopedOutput(logits=by_loop[-1], by_loop=by_loop, loops=run, states=kept)

    def loop(self, state: Tensor, injected: Tensor, loop: int, bias: Tensor | None) -> Tensor:
        """The next state (batch, length, E)."""
        injection, positions = self.config.option("injection"), self.config.option("positions")
        kept = kept_positions(state.shape[1], positions.keep_last, state.device)
        if kept is not None:  # elsewhere it is that before the first loop
            state = torch.where(kept, state, injected) if injection.kind == "none" else state * kept
        if self.injection_scale is not None:
            injected = injected * self.injection_scale
        if injection.kind == "add":
            state = state + injected
        elif injection.kind == "multiply":
            state = (1 + state) * injected  # P itself in the first loop
        if self.loop_scale is not None:
            state = state * self.loop_scale[min(loop, len(self.loop_scale) - 1)]
        self.stack.loops.current = loop
        return self.stack(inputs_embeds=state, attention_mask=bias, use_cache=False).last_hidden_state

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **options: Any
    ) -> None:
        """Let a block be recomputed in the loop of its forward."""
        in_its_loop = partial(self.stack.loops.checkpointed, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, in_its_loop, **options)

    def attention_bias(self, like: Tensor) -> Tensor | None:
        """What ``attend_last`` adds to the scores of the attention; None for the stack's own causal mask."""
        last = self.config.option("positions").attend_last
        length = like.shape[1]
        return None if last is None or last >= length else attention_bias(length, last, like)


def stack_config(config: LoopedConfig) -> AutoConfig:
    """The configuration of transformers' own model that is the stack; it reads states instead of tokens."""
    length = config.option("positions").number
    no_tokens = {"vocab_size": 1, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if config.block == "gpt2":
        sizes = {"n_embd": config.hidden_size, "n_layer": config.n_layer, "n_head": config.num_heads}
        dropout = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
        one_kernel = {"activation_function": "gelu_pytorch_tanh"}  # GPT-2's "gelu_new" is eight of them
        return AutoConfig.for_model("gpt2", **no_tokens, n_positions=length, **sizes, **dropout, **one_kernel)
    sizes = {"hidden_size": config.hidden_size, "num_hidden_layers": config.n_layer}
    heads = {"num_attention_heads": config.num_heads, "num_key_value_heads": config.num_heads}
    inner = {"intermediate_size": 4 * config.hidden_size, "max_position_embeddings": length}
    return AutoConfig.for_model("llama", **no_tokens, **sizes, **heads, **inner)


def settled(before: Tensor, after: Tensor, tolerance: float) -> bool:
    """Whether the state moved by less than a share of its norm."""
    return bool((after - before).norm() < tolerance * after.norm())


AutoConfig.register("looped", LoopedConfig)
AutoModel.register(LoopedConfig, LoopedModel)
