"""The process in which ``seq2seq.swipe.memory`` measures: it loads a saved model and a lexicon, decodes, and exits.

When everything is imported it reads from its standard input where they are. Nothing is warmed up, so that what grows
includes the code of torch that the first decoding reads.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel
from transformers.utils import logging

from seq2seq.swipe.decoding.by_model import model_candidates
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.serve.memory import resident_bytes

MODEL, LEXICON, TRACES = "model", "lexicon", "traces.npz"
"""What a folder holds: a saved model, a saved trie, and points (traces, time, 2), lengths and boxes (letters, 4)."""


def measure(folder: Path, beam: int, language_weight: float) -> dict[str, Any]:
    """Bytes before the files of a folder are read and after its traces are decoded, and the best word of each trace."""
    with np.load(folder / TRACES) as traces:
        points, lengths, boxes = (torch.from_numpy(traces[name]) for name in ("points", "lengths", "boxes"))
    before = resident_bytes()
    model = AutoModel.from_pretrained(folder / MODEL, local_files_only=True).eval()
    trie = PackedTrie.open(folder / LEXICON)
    words = []
    for trace, length in zip(points, lengths.tolist(), strict=True):
        mask = torch.ones(1, length, dtype=torch.int64)
        batch = {"points": trace[None, :length], "attention_mask": mask, "boxes": boxes[None]}
        (found,) = model_candidates(model, batch, beam, 1, trie, language_weight)
        words.append(found[0].word if found else "")
    return {"before": before, "after": resident_bytes(), "words": words}


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    request = json.loads(sys.stdin.readline())
    print(json.dumps(measure(Path(request["folder"]), request["beam"], request["language_weight"])))
