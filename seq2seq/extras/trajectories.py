"""Trajectory length, how far a network stretches a curve: Raghu et al. 2017, "On the Expressive Power of Deep Neural
Networks", arXiv:1606.05336, section 2.2.

    l(z) = integral |dz/dt| dt  ~  sum_i |z(t_{i+1}) - z(t_i)|           the norm is over everything but t

The curve x(t) runs in the space of input embeddings between those of two real sources x0 and x1, padded to one length:

    arc       cos(t) x0 + sin(t) x1,  t from 0 to pi / 2        x (t, source, d_model)
    circle    the same, t from 0 to 2 pi
    line      (1 - t) x0 + t x1,      t from 0 to 1

Its image is measured after every block of a T5 and after the two final norms; the decoder has a fixed input and sees
the curve through the encoder. Each block is also measured alone: an encoder block takes the curve as its hidden states;
a decoder block takes it instead of the encoder's output, and the decoder's input embeddings as its hidden states.
Position biases and masks are those of the model.
"""

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CURVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "arc": lambda x0, x1, t: torch.cos(t * math.pi / 2) * x0 + torch.sin(t * math.pi / 2) * x1,
    "circle": lambda x0, x1, t: torch.cos(t * 2 * math.pi) * x0 + torch.sin(t * 2 * math.pi) * x1,
    "line": lambda x0, x1, t: (1 - t) * x0 + t * x1,
}
CHORDS = 128
"""Chords of a curve; for a circle their total length is too short by pi^2 / (6 * 128^2) = 0.0001 of it."""

ROWS = 32
"""Points of a curve in one forward pass."""


class Pair(NamedTuple):
    """Token ids of two sources, and of the decoder's input."""

    first: Sequence[int]
    second: Sequence[int]
    decoder_input: Sequence[int]


def trajectory_length(points: Tensor) -> Tensor:
    """The length of a polygonal chain with corners (t, ...), in float64; 0 for a single corner.

    Raises:
        ValueError: there are no corners.
    """
    if points.dim() == 0 or len(points) == 0:
        raise ValueError(
            f"A trajectory has its points along the first dimension; got a tensor of shape "
            f"{tuple(points.shape)}: stack them."
        )
    steps = points.double().reshape(len(points), -1).diff(dim=0)  # (t - 1, everything else)
    return torch.linalg.vector_norm(steps, dim=1).sum()


def curve_points(first: Tensor, second: Tensor, curve: str = "arc", chords: int = CHORDS) -> Tensor:
    """Points (chords + 1, ...) of one of ``CURVES`` through two tensors of one shape (...), at equal steps of t."""
    t = torch.linspace(0, 1, chords + 1, dtype=torch.float64, device=first.device)
    t = t.reshape(-1, *(1,) * first.dim())  # (t, 1, ...)
    return CURVES[curve](first.double(), second.double(), t).to(first.dtype)


def trajectory(network: Callable[[Tensor], Mapping[str, Tensor]], points: Tensor, rows: int = ROWS) -> dict[str, float]:
    """Lengths of the images of a curve.

    Args:
        network: from points (b, ...) to outputs by name, each (b, ...); rows are independent.
        points: the curve, (t, ...).
        rows: the number of points in one forward pass.
    """
    lengths: dict[str, float] = defaultdict(float)
    last: dict[str, Tensor] = {}
    for part in points.split(rows):
        for name, outputs in network(part).items():
            # the last point of the part before, for the chord between the two
            joined = torch.cat([last[name], outputs]) if name in last else outputs
            lengths[name] += float(trajectory_length(joined))
            last[name] = outputs[-1:]
    return dict(lengths)


def t5_layers(model: nn.Module, points: Tensor, decoder_input_ids: Tensor) -> dict[str, Tensor]:
    """The outputs of every layer of a T5 for input embeddings, in the model and alone.

    Args:
        model: a T5 with ``encoder`` and ``decoder``, in eval mode.
        points: input embeddings (b, source, d_model); all positions are attended to.
        decoder_input_ids: (target,), the same for all points.

    Returns:
        "input": the input of the first block, (b, source, d_model); "encoder 0", "encoder norm", "decoder 0", ...: the
        outputs in the model; "encoder 0 alone", ...: those of the block alone.
    """
    outputs: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}  # the input of the first block of a stack

    def before(stack_name: str, index: int, block: nn.Module) -> Callable[..., None]:
        signature = inspect.signature(block.forward)

        def run_alone(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = signature.bind(*args, **kwargs)
            given.arguments["hidden_states"] = first.setdefault(stack_name, given.arguments["hidden_states"])
            if stack_name == "decoder":
                given.arguments["encoder_hidden_states"] = first["encoder"]
            outputs[f"{stack_name} {index} alone"] = block.forward(*given.args, **given.kwargs)[0]

        return run_alone

    def after(name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            outputs[name] = output if isinstance(output, Tensor) else output[0]

        return keep

    hooks = []
    for stack_name, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        for index, block in enumerate(stack.block):
            hooks.append(block.register_forward_pre_hook(before(stack_name, index, block), with_kwargs=True))
            hooks.append(block.register_forward_hook(after(f"{stack_name} {index}")))
        hooks.append(stack.final_layer_norm.register_forward_hook(after(f"{stack_name} norm")))
    try:
        model(
            inputs_embeds=points,
            attention_mask=torch.ones(points.shape[:2], dtype=torch.long, device=points.device),
            decoder_input_ids=decoder_input_ids.expand(len(points), -1),  # (target,) -> (b, target)
            use_cache=False,
        )
    finally:
        for hook in hooks:
            hook.remove()
    return {"input": first["encoder"], **outputs}


@torch.no_grad()
def t5_trajectory(
    model: nn.Module, pairs: Iterable[Pair], pad_token_id: int, curve: str = "arc", chords: int = CHORDS
) -> dict[str, float]:
    """The mean over pairs of sources of the lengths at each of the outputs of ``t5_layers``.

    The model's mode, its parameters and the random state are unchanged afterwards.
    """
    lengths: list[dict[str, float]] = []
    device, training = model.device, model.training
    model.eval()
    try:
        for pair in pairs:
            embedded = []
            for ids in (pair.first, pair.second):
                padding = max(len(pair.first), len(pair.second)) - len(ids)
                padded = torch.tensor([*ids, *[pad_token_id] * padding], device=device)
                embedded.append(model.get_input_embeddings()(padded))  # (source, d_model)
            decoder_input = torch.tensor(pair.decoder_input, device=device)
            points = curve_points(*embedded, curve, chords)  # (t, source, d_model)
            lengths.append(trajectory(lambda part, ids=decoder_input: t5_layers(model, part, ids), points))
    finally:
        model.train(training)
    return {name: math.fsum(one[name] for one in lengths) / len(lengths) for name in lengths[0]}
