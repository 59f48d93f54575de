"""The trainer of swipe models, and what it decodes.

greedy            the most likely letter at each point, or step by step
beam              the most likely words of a beam
..._lexicon       of the lexicon's words only, with a weight for their frequency
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.utils import ModelOutput

from adapters.acting import unwrapped
from seq2seq.swipe.data import SwipeData
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import beam_ctc, greedy_ctc
from seq2seq.swipe.decoding.exhaustive import beam_then_exhaustive_ctc
from seq2seq.swipe.decoding.lexicon_processor import beam_generate, masked_cross_entropy
from seq2seq.swipe.decoding.rerank import rerank
from seq2seq.swipe.keys import MODES, SwipeKeys
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.metrics import scores
from third_party.trainers import IGNORED_LABEL, AdapterTrainerMixin
from third_party.trainers.task_adapters import TaskAdaptersMixin

logger = logging.getLogger(__name__)

MAIN_MODE = MODES[-1]
CANDIDATES = 4
"""Words that a trace's prediction has, as a keyboard shows them."""

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
"""Language weights that are tried."""

TUNED_ROWS = 200
"""Validation traces on which they are tried."""

DEFAULT_WEIGHT = 0.2
"""The language weight with which checkpoints are chosen, if it is not given."""

NOTHING = -1e4
"""Log-probabilities behind the end of a trace."""

TOO_SHORT = "%d traces of %s have fewer points than their words need, which CTC cannot read: raise the model's rate."


class Decoded(NamedTuple):
    """Candidates of each trace of a split, and milliseconds of decoding per trace, the encoder left out for CTC."""

    candidates: list[list[Candidate]]
    milliseconds: float


class Predicted(NamedTuple):
    """What a model says of each trace of a split, and its mean loss.

    Args:
        log_probs: (time, 1 + letters) of CTC, (letters + 1, tokens) of a decoder, float32.
    """

    log_probs: list[np.ndarray]
    loss: float


class SwipeTrainer(TaskAdaptersMixin, AdapterTrainerMixin, Trainer):
    """Trains on traces, see ``seq2seq.swipe.data``; scores words.

    Args:
        data: the traces.
        tries: the words by layout.
    """

    unit = "traces"
    flags = SwipeKeys.flags

    def __init__(self, *args: Any, data: SwipeData, tries: dict[str, PackedTrie], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data, self.tries = data, tries
        self.unaligned: Tensor | int = 0
        """How many traces of training were too short for CTC since the last warning; a tensor is not waited for."""

    @property
    def is_ctc(self) -> bool:
        return self.data.keys.architecture == "ctc"

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        return len(inputs["points"])

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tensor(len(inputs["points"]))

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """The negative log-likelihood of the words, summed over rows; log-probabilities (batch, time, ...)."""
        output = model(**inputs)
        loss = output.loss * len(inputs["points"])
        if self.is_ctc and model.training:
            self.unaligned = self.unaligned + output.unaligned
        if self.data.keys.options.in_training:
            (trie,) = self.tries.values()
            labels = inputs["labels"]
            loss = masked_cross_entropy(output.logits, labels, trie) * (labels != IGNORED_LABEL).sum()
        return loss, ModelOutput(logits=output.logits.float().log_softmax(-1))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on the validation split, as transformers expects them: logged, and named eval_..."""
        weight = self.data.keys.options.language_weight
        with self.merged_for_evaluation():
            output = self.predicted("validation")
            decoded = self.decoded("validation", MAIN_MODE, DEFAULT_WEIGHT if weight is None else weight, output)
        found = scores(self.prediction_rows("validation", decoded.candidates))
        found = {**found, "average_metrics": found["swipe_mrr"], "loss": output.loss}
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predicted(self, split: str) -> Predicted:
        """What the model says of a split; each layout by itself, as it may have adapters of its own."""
        self.warn_of_short("training", int(self.unaligned))
        self.unaligned = 0
        rows, loss = self.data.fixed[split], 0.0
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for numbers in self.by_layout(split).values():
            output = self.predict(self.data.rows(split).select(numbers))
            loss += output.metrics["test_loss"] * len(numbers) / len(rows)
            for number, log_probs in zip(numbers, output.predictions, strict=True):
                found[number] = log_probs[: len(rows.points[number])] if self.is_ctc else log_probs
        if self.is_ctc:
            needed = map(frames_needed, rows.words)
            self.warn_of_short(split, sum(len(each) < most for each, most in zip(found, needed, strict=True)))
        return Predicted(found, loss)

    def warn_of_short(self, traces: str, count: int) -> None:
        """Warn of traces whose words need more points than they have, as their loss counts as 0."""
        if count:
            logger.warning(TOO_SHORT, count, traces)

    def by_layout(self, split: str, numbers: Sequence[int] | None = None) -> dict[str, list[int]]:
        """The numbers of some traces of a split, all by default, of each layout that has any."""
        layouts, found = self.data.fixed[split].layouts, {}
        for number in range(len(layouts)) if numbers is None else numbers:
            found.setdefault(layouts[number], []).append(number)
        return found

    def decoded(
        self,
        split: str,
        mode: str,
        weight: float,
        output: Predicted | None = None,
        numbers: Sequence[int] | None = None,
    ) -> Decoded:
        """The candidates of traces of a split, in their order.

        Args:
            mode: one of ``MODES``.
            weight: of the log-frequency of words, with a lexicon.
            output: what ``predicted`` gave for the split; a decoder needs none.
            numbers: of the traces; all of the split by default.
        """
        options, found = self.data.keys.options, {}
        beam = 1 if mode.startswith("greedy") else options.beam
        start = time.perf_counter()
        for name, some in self.by_layout(split, numbers).items():
            trie = self.tries[name] if mode.endswith("_lexicon") else None
            if self.is_ctc:
                decoded = self.from_posteriors([output.log_probs[number] for number in some], beam, trie, weight)
            else:
                decoded = self.generated(split, some, beam, trie, weight)
            if options.corrected and trie is None:
                decoded = rerank(decoded, self.tries[name], CANDIDATES, language_weight=weight)
            found |= zip(some, decoded, strict=True)
        return Decoded([found[n] for n in sorted(found)], 1000 * (time.perf_counter() - start) / len(found))

    def from_posteriors(
        self, log_probs: list[np.ndarray], beam: int, trie: PackedTrie | None, weight: float
    ) -> list[list[Candidate]]:
        """Candidates of CTC's log-probabilities, (time, 1 + letters) for each row."""
        lengths, options = np.array([len(row) for row in log_probs]), self.data.keys.options
        batch = np.full((len(log_probs), lengths.max(), log_probs[0].shape[1]), NOTHING, np.float32)
        for row, values in zip(batch, log_probs, strict=True):
            row[: len(values)] = values
        search = (batch, lengths, self.data.alphabet)
        if beam == 1 and trie is None:
            return greedy_ctc(*search)
        if options.exact and trie is not None:
            return beam_then_exhaustive_ctc(*search, trie, beam, CANDIDATES, weight, options.threshold)
        return beam_ctc(*search, beam, min(beam, CANDIDATES), trie, weight, options.threshold)

    def generated(
        self, split: str, numbers: list[int], beam: int, trie: PackedTrie | None, weight: float
    ) -> list[list[Candidate]]:
        """Candidates that the decoder generates."""
        size, found = self.args.per_device_eval_batch_size, []
        with self.merged_for_evaluation(), torch.no_grad():
            for start in range(0, len(numbers), size):
                rows = [{"split": split, "row": n} for n in numbers[start : start + size]]
                batch = self.model_inputs(self._prepare_inputs(self.data.collate(rows)))
                batch = {name: tensor for name, tensor in batch.items() if name != "labels"}
                model = unwrapped(self.model).eval()
                found += beam_generate(model, batch, beam, min(beam, CANDIDATES), trie, weight)
        return found

    def prediction_rows(
        self, split: str, candidates: list[list[Candidate]], numbers: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """What ``decoded`` found as rows of a predictions file, see ``seq2seq.swipe.predictions``."""
        rows = self.data.fixed[split]
        return [
            {
                "index": rows.numbers[n],
                "word": rows.words[n],
                "layout": rows.layouts[n],
                "candidates": [*map(list, found)],
            }
            for n, found in zip(range(len(rows)) if numbers is None else numbers, candidates, strict=True)
        ]

    def tuned_weight(self) -> float:
        """The language weight: the given one, or the best on some validation traces of each layout."""
        given = self.data.keys.options.language_weight
        if given is not None or "validation" not in self.data.fixed:
            return DEFAULT_WEIGHT if given is None else given
        output = self.predicted("validation") if self.is_ctc else None
        numbers = tuning_rows(self.data.fixed["validation"].layouts, TUNED_ROWS)

        def found(weight: float) -> float:
            decoded = self.decoded("validation", MAIN_MODE, weight, output, numbers)
            return scores(self.prediction_rows("validation", decoded.candidates, numbers))["swipe_mrr"]

        return max(WEIGHTS, key=found)


def frames_needed(word: str) -> int:
    """The frames that CTC needs for a word: one for each letter, and a blank between equal ones."""
    return len(word) + sum(one == other for one, other in pairwise(word))


def tuning_rows(layouts: Sequence[str], count: int) -> list[int]:
    """The first rows of each layout, equally many, ``count`` at most in all: the layout of each row -> numbers."""
    share, seen = count // len(set(layouts)), Counter()
    chosen = []
    for number, name in enumerate(layouts):
        seen[name] += 1
        if seen[name] <= share:
            chosen.append(number)
    return chosen
