"""A swipe model as ONNX graphs, in float32 and with dynamically quantised int8 weights.

    graph      inputs                                                   outputs
    model      points (batch, time, 2), attention_mask (batch, time),   logits (batch, time, 1 + letters)
               boxes (batch, letters, 4)
    encoder    the same                                                 states (batch, time, d_model)
    decoder    states, attention_mask, tokens (batch, length)           logits (batch, length, 2 + letters)

A model with CTC is one graph, an encoder-decoder two. Features are part of the graphs, so that an application gives
points and keys. Batch, time and length are free; the decoder reads the whole prefix at each step. Graphs are traced by
torch's TorchScript exporter, which needs no other package; that of ``torch.export`` would need onnxscript.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adapters import ConfigurationError
from third_party.models.swipe import SwipeForConditionalGeneration, SwipeForCTC

OPSET = 18
BATCH, TIME, LENGTH = "batch", "time", "length"
PRECISIONS = {"float32": "", "int8": "_int8"}
"""The suffixes of the files."""

SwipeModel = SwipeForCTC | SwipeForConditionalGeneration


@dataclass(frozen=True)
class Graph:
    """A part of a model that becomes a graph.

    Args:
        module: maps tensors, given in the order of ``inputs``, to one tensor.
        inputs: the shape of each input; a name is an axis of any size.
        output: its name, and its shape.
    """

    module: nn.Module
    inputs: Mapping[str, tuple[str | int, ...]]
    output: tuple[str, tuple[str | int, ...]]

    @property
    def free_axes(self) -> dict[str, dict[int, str]]:
        """The named axes, as torch's exporter takes them."""
        shapes = {**self.inputs, self.output[0]: self.output[1]}
        return {
            name: {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
            for name, shape in shapes.items()
        }


class Logits(nn.Module):
    """points, attention_mask, boxes -> CTC's logits."""

    def __init__(self, model: SwipeForCTC) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: Tensor, attention_mask: Tensor, boxes: Tensor) -> Tensor:
        return self.model(points, attention_mask, boxes).logits


class Encoder(nn.Module):
    """points, attention_mask, boxes -> states."""

    def __init__(self, model: SwipeForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: Tensor, attention_mask: Tensor, boxes: Tensor) -> Tensor:
        return self.model.encode(points, attention_mask, boxes).last_hidden_state


class Decoder(nn.Module):
    """states, attention_mask, tokens -> logits."""

    def __init__(self, model: SwipeForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, states: Tensor, attention_mask: Tensor, tokens: Tensor) -> Tensor:
        return self.model.decode(states, attention_mask, tokens)


def graphs_of(model: SwipeModel) -> dict[str, Graph]:
    """The graphs of a model, by name."""
    letters, size = len(model.config.alphabet), model.config.d_model
    mask = {"attention_mask": (BATCH, TIME)}
    swipe = {"points": (BATCH, TIME, 2), **mask, "boxes": (BATCH, letters, 4)}
    if isinstance(model, SwipeForCTC):
        return {"model": Graph(Logits(model), swipe, ("logits", (BATCH, TIME, 1 + letters)))}
    states = (BATCH, TIME, size)
    prefix = {"states": states, **mask, "tokens": (BATCH, LENGTH)}
    return {
        "encoder": Graph(Encoder(model), swipe, ("states", states)),
        "decoder": Graph(Decoder(model), prefix, ("logits", (BATCH, LENGTH, 2 + letters))),
    }


def example(graph: Graph, boxes: Tensor, batch: int, time: int, length: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of these sizes: random walks of several lengths over the keyboard, or random states and tokens.

    Args:
        boxes: of the letters' keys, (letters, 4).
    """
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, time + 1, (batch,), generator=draw)
    lengths[0] = time
    made = {"attention_mask": (torch.arange(time) < lengths[:, None]).long()}
    if "tokens" in graph.inputs:
        made["states"] = torch.randn(batch, time, graph.inputs["states"][-1], generator=draw)
        made["tokens"] = torch.randint(2, 2 + len(boxes), (batch, length), generator=draw)
        made["tokens"][:, 0] = 0
    else:
        start = boxes[torch.randint(len(boxes), (batch,), generator=draw), None, :2]
        made["points"] = start + 0.3 * torch.randn(batch, time, 2, generator=draw).cumsum(1)
        made["boxes"] = boxes.expand(batch, -1, -1).contiguous()
    return {name: made[name] for name in graph.inputs}


@torch.no_grad()
def write_graph(graph: Graph, boxes: Tensor, path: Path) -> None:
    """Write a graph in float32."""
    require_onnx()
    inputs = example(graph, boxes, batch=2, time=9, length=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a deprecated exporter; what it traced is compared in ``checks``
        torch.onnx.export(
            graph.module.eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=[graph.output[0]],
            dynamic_axes=graph.free_axes,
            opset_version=OPSET,
            dynamo=False,
        )


def quantise(source: Path, target: Path) -> None:
    """Write a graph whose matrices are int8, a scale for each column; activations are quantised as they come."""
    require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(source, target, ["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without onnxruntime's advice on graphs, which it gives the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def require_onnx() -> None:
    """Refuse an environment without onnx and onnxruntime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"An export needs onnx and onnxruntime; got an environment without {error.name}: "
            "pip install 'tensorized-adapters[onnx]'."
        ) from error
