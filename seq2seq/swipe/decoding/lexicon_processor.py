"""A lexicon in transformers' ``generate``, and in the training loss: a decoder that spells only words of a trie.

Tokens are 0 padding and the decoder's start, 1 the end, 2 + i letter i. At each step letters that leave the trie have
probability zero, and so has the end where no word ends. A finished word w has the score

    sum_t log p(letter t | letters before t, trace) + log p(end | w, trace) + language_weight * log_frequency(w)

where p is the model's own distribution, before masking. ``masked_cross_entropy`` trains the distribution after masking,
which leaves no probability to what the lexicon excludes.

    n rows (batch * beam), V = 2 + L tokens
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from adapters.validation import refuse
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import check_options
from seq2seq.swipe.lexicon.trie import PackedTrie
from third_party.models.swipe.configuration import END, FIRST_LETTER_TOKEN, IGNORED, PAD

LONGEST = 32
"""Letters of the longest word that is decoded without a lexicon."""


class LexiconProcessor(LogitsProcessor):
    """Masks what leaves the lexicon and adds the share of a word's frequency at its end: greedy, beam and sampling.

    Args:
        trie: the lexicon.
        language_weight: factor of a word's log-frequency.
    """

    def __init__(self, trie: PackedTrie, language_weight: float = 0.0) -> None:
        self.trie = trie
        self.language_weight = language_weight

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores with those of impossible tokens at -inf: tokens so far (n, steps), scores (n, V) -> (n, V)."""
        ids = input_ids.cpu().numpy()
        nodes = nodes_before(self.trie, ids)[:, -1]
        words = self.trie.words_at(nodes)
        allowed = allowed_tokens(self.trie, nodes)
        allowed[:, PAD] = (ids == END).any(1)  # nothing but padding follows a word
        shares = np.where(words >= 0, self.trie.log_frequencies[words] * self.language_weight, 0.0)
        masked = scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)
        masked[:, END] += torch.from_numpy(shares).to(masked)
        return masked


class LettersProcessor(LogitsProcessor):
    """Masks padding, which is no letter, and an end before the first letter: decoding without a lexicon."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores with those of impossible tokens at -inf: tokens so far (n, steps), scores (n, V) -> (n, V)."""
        masked = scores.clone()
        masked[:, PAD] = -torch.inf
        if input_ids.shape[1] == 1:
            masked[:, END] = -torch.inf
        return masked


def nodes_before(trie: PackedTrie, ids: np.ndarray) -> np.ndarray:
    """The node of the trie behind each token: (n, steps) that begin with the start -> (n, steps), -1 outside."""
    nodes = np.full(ids.shape, trie.root, np.int64)
    for step in range(1, ids.shape[1]):
        letters = ids[:, step] - FIRST_LETTER_TOKEN
        found = trie.step(nodes[:, step - 1], np.maximum(letters, 0))
        nodes[:, step] = np.where(letters >= 0, found, -1)
    return nodes


def allowed_tokens(trie: PackedTrie, nodes: np.ndarray) -> np.ndarray:
    """Which tokens may follow at each node: (n,) -> bool (n, V)."""
    special = np.stack([np.zeros(len(nodes), bool), trie.words_at(nodes) >= 0], 1)
    return np.concatenate([special, trie.allowed(nodes)], 1)


@torch.no_grad()
def beam_generate(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    beam: int = 8,
    candidates: int = 4,
    trie: PackedTrie | None = None,
    language_weight: float = 0.0,
) -> list[list[Candidate]]:
    """The best words of each row by beam search with cached keys and values, ranked by their log-probability.

    Args:
        model: an encoder-decoder whose configuration has ``alphabet``.
        batch: what ``generate`` takes, such as points, attention_mask and boxes.
        beam: prefixes that are kept at each step; 1 is greedy decoding.
        candidates: words that are returned, at most ``beam``; with a lexicon there may be fewer.
        trie: the lexicon; only its words are returned. Any string of at most LONGEST letters by default.
        language_weight: factor of a word's log-frequency, which is added to its score.

    Raises:
        ConfigurationError: an option is out of its range, or the lexicon is of another alphabet.
    """
    check_options(beam, candidates)
    alphabet = model.config.alphabet
    if candidates > beam:
        refuse("candidates", f"must be at most the beam, which is {beam}", candidates, "widen the beam", "decoding")
    if trie is not None and trie.alphabet != alphabet:
        fix = f"build the lexicon for the model's alphabet {alphabet!r}"
        refuse("lexicon", "must have the alphabet of the model", repr(trie.alphabet), fix, "decoding")
    processor = LexiconProcessor(trie, language_weight) if trie is not None else LettersProcessor()
    output = model.generate(
        **batch,
        max_new_tokens=(trie.longest if trie is not None else LONGEST) + 1,
        num_beams=beam,
        num_return_sequences=candidates,
        do_sample=False,
        logits_processor=LogitsProcessorList([processor]),
        return_dict_in_generate=True,
        output_logits=True,
        **({"length_penalty": 0.0, "early_stopping": "never"} if beam > 1 else {}),
    )
    own = model.compute_transition_scores(
        output.sequences, output.logits, getattr(output, "beam_indices", None), normalize_logits=True
    )
    ids = output.sequences[:, 1:]
    lengths = ids.eq(END).int().argmax(1)  # letters before the end, 0 without an end
    inside = torch.arange(own.shape[1], device=own.device) <= lengths[:, None]
    scores = own.double().masked_fill(~inside, 0.0).sum(1).tolist()
    rows: list[dict[str, float]] = [{} for _ in range(len(ids) // candidates)]
    for place, (length, score) in enumerate(zip(lengths.tolist(), scores, strict=True)):
        word = "".join(alphabet[letter - FIRST_LETTER_TOKEN] for letter in ids[place, :length].tolist())
        # generate fills up a beam without enough words with padding, repetitions, or what was masked.
        if word and (trie is None or word in trie):
            share = 0.0 if trie is None else language_weight * trie.log_frequencies[trie.words_at(trie.node(word))]
            rows[place // candidates][word] = float(score + share)
    return [[Candidate(*pair) for pair in sorted(row.items(), key=lambda pair: -pair[1])] for row in rows]


def masked_cross_entropy(logits: Tensor, labels: Tensor, trie: PackedTrie) -> Tensor:
    """The mean cross-entropy of labels under the softmax over those tokens that go on to a word of the lexicon.

    A word outside the lexicon is trained all the same: its own tokens are always allowed, and nothing is masked behind
    the letter that leaves the trie.

    Args:
        logits: (batch, steps, V).
        labels: (batch, steps) int64, letters and the end, padded with -100.
    """
    ids = labels.cpu().numpy()
    start = np.zeros((len(ids), 1), ids.dtype)
    nodes = nodes_before(trie, np.concatenate([start, ids[:, :-1]], 1)).reshape(-1)
    allowed = allowed_tokens(trie, nodes) | (nodes < 0)[:, None]
    rows = np.flatnonzero(ids.reshape(-1) != IGNORED)
    allowed[rows, ids.reshape(-1)[rows]] = True
    mask = torch.from_numpy(~allowed).to(logits.device)
    masked = logits.reshape(len(nodes), -1).masked_fill(mask, -torch.inf)
    return F.cross_entropy(masked, labels.reshape(-1), ignore_index=IGNORED)
