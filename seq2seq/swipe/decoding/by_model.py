"""The words of a model of either kind, by a beam with a lexicon."""

import torch
from torch import Tensor

from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import beam_ctc
from seq2seq.swipe.decoding.lexicon_processor import beam_generate
from seq2seq.swipe.lexicon.trie import PackedTrie
from third_party.models.swipe import SwipeForConditionalGeneration, SwipeForCTC


@torch.no_grad()
def model_candidates(
    model: SwipeForCTC | SwipeForConditionalGeneration,
    batch: dict[str, Tensor],
    beam: int,
    candidates: int,
    trie: PackedTrie,
    language_weight: float,
) -> list[list[Candidate]]:
    """The candidates of each row, best first.

    Args:
        model: in evaluation mode, on the CPU.
        batch: points, attention_mask and boxes, see ``SwipeForCTC``.
        beam, candidates, trie, language_weight: as of ``beam_ctc``; no more candidates than the beam has.
    """
    candidates = min(beam, candidates)
    if not isinstance(model, SwipeForCTC):
        return beam_generate(model, batch, beam, candidates, trie, language_weight)
    log_probs = model(**batch).logits.float().log_softmax(-1).numpy()  # (batch, time, 1 + letters)
    lengths = batch["attention_mask"].sum(1).numpy()
    return beam_ctc(log_probs, lengths, trie.alphabet, beam, candidates, trie, language_weight)
