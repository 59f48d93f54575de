"""The folder of an exported model, which an application loads without torch and without the run.

export.json                   what follows, the model's alphabet, features and rate, and how its words are scored
model.onnx, model_int8.onnx   with CTC; else encoder.onnx, decoder.onnx, and the same in int8
layouts/<name>/layout.json    keys of each layout of the run
layouts/<name>/lexicon/       its words, a ``PackedTrie``

exported = Exported.open("exported/qwerty", "int8")
logits = exported.run("model", points=points, attention_mask=mask, boxes=boxes)     # numpy arrays
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import torch

from adapters import ConfigurationError
from adapters.validation import nearest_name, refuse
from seq2seq.run_folder import write_json
from seq2seq.swipe.export.graphs import PRECISIONS, Graph, graphs_of, quantise, require_onnx, write_graph
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.keyboards.boxes import boxes_of
from seq2seq.swipe.keyboards.layout import Layout, load_layout, save_layout
from seq2seq.swipe.lexicon.trie import PackedTrie
from third_party.models.swipe import SwipeForCTC
from third_party.models.swipe.configuration import BLANK, END, FIRST_LETTER, FIRST_LETTER_TOKEN, PAD

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = 1
HEADER = "export.json"
WHERE = "an export"
INT64 = ("attention_mask", "tokens")
"""Inputs of this dtype; the others are float32."""


def write_folder(run: FinishedRun, folder: Path) -> None:
    """Write a run's model, layouts and lexicons into a new or empty folder; export.json is written last.

    Raises:
        ConfigurationError: onnx or onnxruntime is missing, or the folder holds something.
    """
    require_onnx()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigurationError(f"DEST is a new or empty folder; got {folder}, which is not: choose another one.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, layout in run.keys.layouts.items():
        place = folder / place_of(name)
        PackedTrie.build(run.keys.words[name], run.model.config.alphabet).save(place / "lexicon")
        save_layout(layout, place / "layout.json")
    boxes = torch.from_numpy(boxes_of(layout, run.model.config.alphabet))
    graphs = graphs_of(run.model)
    for name, graph in graphs.items():
        write_graph(graph, boxes, folder / file_of(name, "float32"))
        quantise(folder / file_of(name, "float32"), folder / file_of(name, "int8"))
    write_json(folder / HEADER, header_of(run, graphs))


def place_of(layout: str) -> str:
    """The folder of a layout."""
    return f"layouts/{quote(layout, safe='')}"


def file_of(graph: str, precision: str) -> str:
    """The file of a graph."""
    return f"{graph}{PRECISIONS[precision]}.onnx"


def header_of(run: FinishedRun, graphs: Mapping[str, Graph]) -> dict[str, Any]:
    """What export.json holds."""
    config = run.model.config
    classes = {"blank": BLANK, "first_letter": FIRST_LETTER}
    tokens = {"start": PAD, "end": END, "first_letter": FIRST_LETTER_TOKEN}
    return {
        "format": FORMAT,
        "architecture": run.keys.architecture,
        "alphabet": config.alphabet,
        "features": config.features,
        "rate": config.rate,
        "classes": classes if isinstance(run.model, SwipeForCTC) else tokens,
        "beam": run.keys.options.beam,
        "language_weight": run.language_weight,
        "layouts": {name: place_of(name) for name in run.keys.layouts},
        "graphs": {
            name: {
                "files": {precision: file_of(name, precision) for precision in PRECISIONS},
                "inputs": {key: described(key, shape) for key, shape in graph.inputs.items()},
                "output": {"name": graph.output[0], **described(*graph.output)},
            }
            for name, graph in graphs.items()
        },
    }


def described(name: str, shape: tuple[str | int, ...]) -> dict[str, Any]:
    """The shape and dtype of an array."""
    return {"shape": [*shape], "dtype": "int64" if name in INT64 else "float32"}


@dataclass(frozen=True)
class Exported:
    """An exported model in one precision.

    Args:
        header: of export.json.
        layouts: by name.
        tries: the words by layout, on disk.
        sessions: the graphs by name.
    """

    header: Mapping[str, Any]
    layouts: Mapping[str, Layout]
    tries: Mapping[str, PackedTrie]
    sessions: "Mapping[str, InferenceSession]"

    @classmethod
    def open(cls, folder: str | Path, precision: str = "float32") -> "Exported":
        """Open a folder that ``write_folder`` wrote.

        Args:
            precision: "float32" or "int8".

        Raises:
            ConfigurationError: onnxruntime is missing, or the folder is no export of this format.
        """
        require_onnx()
        import onnxruntime

        if precision not in PRECISIONS:
            refuse("precision", "is a known name", repr(precision), nearest_name(precision, PRECISIONS), WHERE)
        folder = Path(folder)
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            known = header["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"An export is a folder with export.json; got {folder}: {error}.") from error
        if not known:
            refuse("format", f"is {FORMAT}", header["format"], "export the run again", WHERE)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        sessions = {
            name: onnxruntime.InferenceSession(
                folder / graph["files"][precision], options, providers=["CPUExecutionProvider"]
            )
            for name, graph in header["graphs"].items()
        }
        places = {name: folder / place for name, place in header["layouts"].items()}
        return cls(
            header,
            {name: load_layout(place / "layout.json") for name, place in places.items()},
            {name: PackedTrie.open(place / "lexicon") for name, place in places.items()},
            sessions,
        )

    def run(self, graph: str, **inputs: np.ndarray) -> np.ndarray:
        """The output of a graph."""
        (output,) = self.sessions[graph].run(None, inputs)
        return output

    def boxes(self, layout: str) -> np.ndarray:
        """The keys of the model's letters on a layout, (letters, 4) float32."""
        return boxes_of(self.layouts[layout], self.header["alphabet"])
