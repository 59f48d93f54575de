"""From a trace to suggestions: a model with its layouts and lexicons, for the page and other applications.

    predictor = Predictor.from_run("outputs/swipe_qwerty")
    predictor.predict(trace, "en").suggestions

What a model makes of a trace is also where it reads each letter. With CTC that is the posterior of the letter at each
point. A decoder writes a letter at a step, and reads where its cross-attention is, averaged over layers and heads.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import adapters
from adapters.validation import nearest_name, refuse
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import beam_ctc
from seq2seq.swipe.decoding.lexicon_processor import beam_generate
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.keyboards.boxes import boxes_of
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.swipe.traces.trace import Trace, resampled
from seq2seq.swipe.trainer import DEFAULT_WEIGHT
from third_party.models.swipe import SwipeForConditionalGeneration, SwipeForCTC
from third_party.models.swipe.configuration import BLANK, FIRST_LETTER, FIRST_LETTER_TOKEN, PAD

BEAM = 32
WHERE = "a prediction"


class Suggestion(NamedTuple):
    """A word that a trace may mean.

    Args:
        word: its letters, as they are typed.
        displayed: as it is written, with apostrophes and capitals.
        probability: its share of the scores of all words that the beam found.
    """

    word: str
    displayed: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model made of a trace.

    Args:
        suggestions: the best first.
        posterior: (time, 1 + letters) float32 between 0 and 1, where the model reads which letter of ``alphabet``; the
            first column is CTC's blank, or the end of the word. Attention is relative to the largest of its letter, and
            0 for letters that are not in the best word.
        points: (time, 2) float32, the trace as the model sees it, in key widths.
        alphabet: the model's letters.
        milliseconds: from the trace to all this.
    """

    suggestions: list[Suggestion]
    posterior: np.ndarray
    points: np.ndarray
    alphabet: str
    milliseconds: float


class Predictor:
    """A model, the layouts that it reads, and the lexicons that it can be held to.

    Args:
        model: on the CPU; it is set to evaluation. Adapters by task are those of the layout of that name.
        tries: lexicons by name, over the model's alphabet.
        layouts: by name; their letters are letters of the model.
        beam: hypotheses.
        language_weight: factor of a word's log-frequency in its score.
    """

    def __init__(
        self,
        model: SwipeForCTC | SwipeForConditionalGeneration,
        tries: Mapping[str, PackedTrie],
        layouts: Mapping[str, Layout],
        beam: int = BEAM,
        language_weight: float = DEFAULT_WEIGHT,
    ) -> None:
        self.model = model.eval()
        if isinstance(model, SwipeForConditionalGeneration):
            model.set_attn_implementation("eager")  # others do not return attention
        self.tries, self.layouts = dict(tries), dict(layouts)
        self.beam, self.language_weight = beam, language_weight
        self.alphabet: str = model.config.alphabet
        self.boxes = {name: torch.from_numpy(boxes_of(layout, self.alphabet)) for name, layout in layouts.items()}

    @classmethod
    def from_run(cls, folder: str | Path) -> "Predictor":
        """The model of a finished run, its layouts, and its lexicon.

        Its adapter is merged, unless layouts have adapters of their own.

        Raises:
            ConfigurationError: the folder has no finished run of the workload swipe.
        """
        run = FinishedRun.open(folder)
        tries = {run.keys.lexicon_label: PackedTrie.build(joined(run.keys.words.values()), run.keys.config.alphabet)}
        options = run.keys.options
        return cls(run.model, tries, run.keys.layouts, options.beam, options.language_weight)

    def add_lexicon(self, path: Path) -> None:
        """Add the words of a file, by its name; its lines are "word<TAB>count".

        Raises:
            ConfigurationError: the file is of another form, or has no word that can be typed.
        """
        words = joined(Lexicon.from_file(path, layout) for layout in self.layouts.values())
        self.tries[path.name] = PackedTrie.build(words, self.alphabet)

    @property
    def summary(self) -> dict[str, int]:
        """Parameters of the model, its bytes, and those of all lexicons."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            "lexicon_bytes": sum(trie.nbytes for trie in self.tries.values()),
        }

    @torch.no_grad()
    def predict(self, trace: Trace, lexicon: str | None, candidates: int = 4) -> Prediction:
        """The best words of a trace.

        Args:
            lexicon: the name of that whose words are suggested; None for any string of letters.

        Raises:
            ConfigurationError: the layout or the lexicon is unknown.
        """
        start = time.perf_counter()
        for key, name, known in (("layout", trace.layout, self.layouts), ("lexicon", lexicon, self.tries)):
            if name not in known and not (key == "lexicon" and name is None):
                refuse(key, "must be a known name", repr(name), nearest_name(str(name), known), WHERE)
        trie = None if lexicon is None else self.tries[lexicon]
        points = resampled(trace, self.layouts[trace.layout], self.model.config.rate)
        batch = {
            "points": torch.from_numpy(points)[None],
            "attention_mask": torch.ones(1, len(points), dtype=torch.int64),
            "boxes": self.boxes[trace.layout][None],
        }
        if adapters.attachments(self.model):
            adapters.set_active_task(self.model, trace.layout)
        read = self.by_posterior if isinstance(self.model, SwipeForCTC) else self.by_attention
        found, posterior = read(batch, trie)
        suggestions = suggestions_of(found, trie)[:candidates]
        milliseconds = 1000 * (time.perf_counter() - start)
        return Prediction(suggestions, posterior, points, self.alphabet, milliseconds)

    def by_posterior(self, batch: Mapping[str, Tensor], trie: PackedTrie | None) -> tuple[list[Candidate], np.ndarray]:
        """The words of CTC's beam, and the posterior (time, 1 + letters)."""
        log_probs = self.model(**batch).logits.float().log_softmax(-1).numpy()  # (1, time, 1 + letters)
        lengths = np.array([log_probs.shape[1]])
        (found,) = beam_ctc(log_probs, lengths, self.alphabet, self.beam, self.beam, trie, self.language_weight)
        return found, np.exp(log_probs[0])

    def by_attention(self, batch: Mapping[str, Tensor], trie: PackedTrie | None) -> tuple[list[Candidate], np.ndarray]:
        """The words that the decoder writes, and the cross-attention of the best one by letter (time, 1 + letters)."""
        (found,) = beam_generate(self.model, batch, self.beam, self.beam, trie, self.language_weight)
        posterior = np.zeros((batch["points"].shape[1], 1 + len(self.alphabet)), np.float32)
        if not found:
            return found, posterior
        letters = [self.alphabet.index(letter) for letter in found[0].word]
        columns = [
            *(FIRST_LETTER + letter for letter in letters),
            BLANK,
        ]  # of what is written at each step, the end last
        tokens = torch.tensor([[PAD, *(FIRST_LETTER_TOKEN + letter for letter in letters)]])  # begins with the start
        attention = self.model(**batch, decoder_input_ids=tokens, output_attentions=True).cross_attentions
        weights = torch.stack(attention).mean((0, 2))[0]  # layers, 1, heads, steps, time -> steps, time
        relative = (weights / weights.amax(1, keepdim=True)).numpy()
        for column, row in zip(columns, relative, strict=True):
            posterior[:, column] = np.maximum(posterior[:, column], row)
        return found, posterior


def joined(lexicons: Iterable[Lexicon]) -> Lexicon:
    """The words of all lexicons, which may be typed on several layouts."""
    found: dict[str, tuple[float, str]] = {}
    for lexicon in lexicons:
        found = {
            **dict(zip(lexicon.words, zip(lexicon.log_frequencies, lexicon.displayed, strict=True), strict=True)),
            **found,
        }
    words = sorted(found)
    return Lexicon(words, np.array([found[word][0] for word in words], np.float32), [found[word][1] for word in words])


def suggestions_of(found: Sequence[Candidate], trie: PackedTrie | None) -> list[Suggestion]:
    """Candidates as they are shown."""
    if not found:
        return []
    scores = np.array([candidate.log_probability for candidate in found])
    shares = np.exp(scores - np.logaddexp.reduce(scores))
    return [Suggestion(each.word, displayed(each.word, trie), float(p)) for each, p in zip(found, shares, strict=True)]


def displayed(word: str, trie: PackedTrie | None) -> str:
    """How a word of the lexicon is written."""
    return word if trie is None else trie.displayed(int(trie.words_at(np.array([trie.node(word)]))[0]))
