"""An export beside the model in torch: the difference of what they compute, and of the words that they find."""

import copy

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from seq2seq.swipe.decoding.by_model import model_candidates
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.export.folder import Exported
from seq2seq.swipe.export.graphs import SwipeModel, example, graphs_of
from seq2seq.swipe.metrics import Row
from seq2seq.swipe.rows import Rows
from seq2seq.swipe.traces.trace import padded
from seq2seq.swipe.trainer import CANDIDATES
from third_party.models.swipe import SwipeCTCOutput, SwipeForCTC

SIZES = ((1, 1, 1), (1, 7, 5), (3, 40, 2), (8, 120, 12))
"""Batch, time and letters of the inputs that are compared."""
BATCH = 64
"""Traces that are decoded together."""


@torch.no_grad()
def largest_difference(model: SwipeModel, exported: Exported) -> float:
    """The largest difference of an output, as a share of the largest output, over graphs, layouts and ``SIZES``."""
    differences = [0.0]
    for name, graph in graphs_of(model).items():
        for layout in exported.layouts:
            for sizes in SIZES:
                inputs = example(graph, torch.from_numpy(exported.boxes(layout)), *sizes)
                expected = graph.module(*inputs.values()).numpy()
                found = exported.run(name, **{key: value.numpy() for key, value in inputs.items()})
                if found.shape != expected.shape or not np.isfinite(found).all():
                    return float("inf")
                differences.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
    return max(differences)


def on_graphs(model: SwipeModel, exported: Exported) -> SwipeModel:
    """The model, with the graphs of an export in the place of its computations."""

    def run(graph: str, **inputs: Tensor) -> Tensor:
        return torch.from_numpy(exported.run(graph, **{name: value.numpy() for name, value in inputs.items()}))

    def ctc(points: Tensor, attention_mask: Tensor, boxes: Tensor) -> SwipeCTCOutput:
        return SwipeCTCOutput(logits=run("model", points=points, attention_mask=attention_mask, boxes=boxes))

    def encode(points: Tensor, attention_mask: Tensor, boxes: Tensor) -> BaseModelOutput:
        return BaseModelOutput(run("encoder", points=points, attention_mask=attention_mask, boxes=boxes))

    def decode(
        attention_mask: Tensor, encoder_outputs: BaseModelOutput, decoder_input_ids: Tensor, **_: object
    ) -> Seq2SeqLMOutput:
        states = encoder_outputs.last_hidden_state
        inputs = {"states": states, "attention_mask": attention_mask, "tokens": decoder_input_ids}
        return Seq2SeqLMOutput(logits=run("decoder", **inputs))

    twin = copy.copy(model)
    if isinstance(model, SwipeForCTC):
        twin.forward = ctc
    else:
        twin.encode, twin.forward = encode, decode
        twin.generation_config = copy.deepcopy(model.generation_config)
        twin.generation_config.use_cache = False  # the graph reads the whole prefix
    return twin


def predictions(model: SwipeModel, rows: Rows, exported: Exported, beam: int, weight: float, count: int) -> list[Row]:
    """The candidates of the first traces of a split, by a beam with the lexicon, as rows of predictions."""
    found: dict[int, list[Candidate]] = {}
    for name in exported.layouts:
        numbers = [n for n in range(min(count, len(rows))) if rows.layouts[n] == name]
        trie = exported.tries[name]
        for start in range(0, len(numbers), BATCH):
            part = numbers[start : start + BATCH]
            points, mask = map(torch.from_numpy, padded([rows.points[n] for n in part]))
            boxes = torch.from_numpy(exported.boxes(name)).expand(len(part), -1, -1).contiguous()
            batch = {"points": points, "attention_mask": mask, "boxes": boxes}
            found |= zip(part, model_candidates(model, batch, beam, CANDIDATES, trie, weight), strict=True)
    return [
        {"index": rows.numbers[n], "word": rows.words[n], "layout": rows.layouts[n], "candidates": found[n]}
        for n in sorted(found)
    ]
