"""Measure swipe typing: ms per word by beam width, with and without a lexicon, beside alternatives; rows per second.

    python -m benchmarks.swipe                          some minutes
    python -m benchmarks.swipe --lexicon 10000 --words 16

The frames are made up: those of a CTC model that spells random words of the lexicon with noise. "found" is the share
of words that come first. The encoder-decoder is a T5 with random weights; its reference runs the decoder for one
hypothesis at a time, without a cache, and finds the same words. Rows per second are of ``benchmarks.swipe_rows``. Times
are comparable within one run only; ratios are to the first row.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from adapters.tables import render_table
from benchmarks.machine import describe_machine
from benchmarks.options import parser_of
from benchmarks.swipe_rows import measure_rows, rows_table
from benchmarks.timing import Timing, interleaved
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import beam_ctc, greedy_ctc
from seq2seq.swipe.decoding.exhaustive import beam_then_exhaustive_ctc, exhaustive_ctc
from seq2seq.swipe.decoding.lexicon_processor import beam_generate
from seq2seq.swipe.keyboards.layout import layout_from_rows
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from third_party.models.swipe.configuration import END, FIRST_LETTER_TOKEN

QWERTY = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])
BEAMS = (8, 32, 128)
THRESHOLDS = (5.0, 10.0, 20.0)
FRAMES_PER_LETTER = 3
EXHAUSTIVE_WORDS = 4
GENERATED_WORDS = 4
GENERATE_BEAM = 8

Rows = list[list[Candidate]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write swipe.json and swipe.md."""
    parser = parser_of("benchmarks.swipe", __doc__)
    parser.add_argument("--lexicon", type=int, default=250_000, help="words of the lexicon")
    parser.add_argument("--words", type=int, default=64, help="words that are decoded, as one batch")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    lexicon = Lexicon.from_wordfreq("en", options.lexicon, QWERTY)
    start = time.perf_counter()
    trie = PackedTrie.build(lexicon, QWERTY.alphabet)
    seconds = time.perf_counter() - start
    record = {
        "machine": describe_machine(torch.device("cpu")),
        "trie": {"words": len(trie), "nodes": len(trie.first) - 1, "bytes": trie.nbytes, "build_seconds": seconds},
        "ctc": measure_ctc(lexicon, trie, options.words, options.rounds),
        "generate": measure_generate(trie, options.rounds),
        "training": measure_rows(options.rounds),
    }
    tables = "\n\n".join([ctc_table(record), generate_table(record), rows_table(record["training"])])
    print(tables)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "swipe.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (options.out / "swipe.md").write_text(f"```\n{tables}\n```\n", encoding="utf-8")
    return 0


def frames_of(words: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames that spell words with noise: log-probabilities (words, time, 1 + letters) float32, lengths (words,)."""
    lengths = np.array([FRAMES_PER_LETTER * len(word) for word in words])
    logits = np.random.default_rng(seed).normal(size=(len(words), lengths.max(), 1 + len(QWERTY.alphabet))) * 1.5
    for row, word in enumerate(words):
        for k, letter in enumerate(word):
            frames = logits[row, FRAMES_PER_LETTER * k : FRAMES_PER_LETTER * (k + 1)]
            frames[:-1, 1 + QWERTY.alphabet.index(letter)] += 5
            frames[-1, 0] += 5
    return torch.log_softmax(torch.from_numpy(logits), -1).float().numpy(), lengths


def measure_ctc(lexicon: Lexicon, trie: PackedTrie, count: int, rounds: int) -> list[dict[str, Any]]:
    """Return ms per word and the share of words found, for each way of decoding; the first one is the default."""
    words = np.random.default_rng(1).choice(lexicon.words, count).tolist()
    frames, lengths = frames_of(words)
    few = min(EXHAUSTIVE_WORDS, count)
    whole, part = (frames, lengths, QWERTY.alphabet), (frames[:few], lengths[:few], QWERTY.alphabet)
    ways: dict[str, tuple[int, Callable[[], Rows]]] = {
        "beam 32, lexicon": (count, lambda: beam_ctc(*whole, trie=trie)),
        "greedy": (count, lambda: greedy_ctc(*whole)),
    }
    for beam in BEAMS:
        ways[f"beam {beam}"] = count, lambda beam=beam: beam_ctc(*whole, beam)
        ways[f"beam {beam}, lexicon"] = count, lambda beam=beam: beam_ctc(*whole, beam, trie=trie)
    for limit in THRESHOLDS:
        ways[f"beam 32, lexicon, threshold {limit:g}"] = (
            count,
            lambda limit=limit: beam_ctc(*whole, trie=trie, threshold=limit),
        )
    ways["beam 32, lexicon, one word at a time"] = (
        count,
        lambda: [
            beam_ctc(frames[k : k + 1, :n], lengths[k : k + 1], QWERTY.alphabet, trie=trie)[0]
            for k, n in enumerate(lengths)
        ],
    )
    ways["beam 32, then its words exactly"] = count, lambda: beam_then_exhaustive_ctc(*whole, trie)
    ways["the whole lexicon exactly"] = few, lambda: exhaustive_ctc(*part, trie)
    found = {name: share_found(decode(), words) for name, (_, decode) in ways.items()}
    times = interleaved({name: decode for name, (_, decode) in ways.items()}, rounds, torch.device("cpu"))
    return [
        {"way": name, "words": number, "found": found[name], "seconds_per_word": per(times[name], number)}
        for name, (number, _) in ways.items()
    ]


def share_found(rows: Rows, words: Sequence[str]) -> float:
    """Return the share of rows whose first candidate is the word."""
    return sum(bool(row) and row[0].word == word for row, word in zip(rows, words, strict=False)) / len(rows)


def per(timing: Timing, count: int) -> list[float]:
    """Return median and quartiles for each of ``count`` words."""
    return [timing.median / count, timing.low / count, timing.high / count]


def measure_generate(trie: PackedTrie, rounds: int) -> dict[str, Any]:
    """Return seconds per word of the cached, batched beam and of one hypothesis at a time, and whether they agree."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=FIRST_LETTER_TOKEN + len(QWERTY.alphabet),
        decoder_start_token_id=0,
        alphabet=QWERTY.alphabet,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=4,
        num_heads=4,
    )
    model = T5ForConditionalGeneration(config).eval()
    points = torch.randn(GENERATED_WORDS, 40, config.d_model)
    batch = {"inputs_embeds": points, "attention_mask": torch.ones(points.shape[:2], dtype=torch.long)}
    ways = {
        "batched, cached": lambda: beam_generate(model, batch, GENERATE_BEAM, 4, trie, 0.2),
        "one hypothesis at a time": lambda: one_at_a_time(model, batch, GENERATE_BEAM, 4, trie, 0.2),
    }
    first, second = (decode() for decode in ways.values())
    times = interleaved(ways, rounds, torch.device("cpu"))
    return {
        "beam": GENERATE_BEAM,
        "equal": agree(first, second),
        "seconds_per_word": {name: per(times[name], GENERATED_WORDS) for name in ways},
    }


def agree(first: Rows, second: Rows) -> bool:
    """Return whether two results have the same words in the same order and, to float32, the same scores."""
    same = [[word for word, _ in row] for row in first] == [[word for word, _ in row] for row in second]
    scores = [[score for row in rows for _, score in row] for rows in (first, second)]
    return same and bool(np.allclose(*scores, rtol=1e-4))


@torch.no_grad()
def one_at_a_time(
    model: T5ForConditionalGeneration,
    batch: dict[str, torch.Tensor],
    beam: int,
    candidates: int,
    trie: PackedTrie,
    language_weight: float,
) -> Rows:
    """Beam search as in ``generate`` with loops over rows and hypotheses, and the whole prefix decoded at each step."""
    found = []
    for row in range(len(batch["attention_mask"])):
        mask = batch["attention_mask"][row : row + 1]
        states = model.encoder(inputs_embeds=batch["inputs_embeds"][row : row + 1], attention_mask=mask)
        encoded = BaseModelOutput(last_hidden_state=states.last_hidden_state)
        running, finished = [(0.0, "", trie.root)], []
        for _ in range(trie.longest + 1):
            longer = []
            for score, word, node in running:
                tokens = [0, *(FIRST_LETTER_TOKEN + trie.alphabet.index(letter) for letter in word)]
                ids = torch.tensor([tokens])
                output = model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=ids, use_cache=False)
                log_probs = torch.log_softmax(output.logits[0, -1], -1).tolist()
                if (index := int(trie.words_at(node))) >= 0:
                    share = language_weight * float(trie.log_frequencies[index])
                    longer.append((score + log_probs[END] + share, word, -1))
                _, letters, children = trie.extensions(np.array([node]))
                for letter, child in zip(letters.tolist(), children.tolist(), strict=True):
                    longer.append((score + log_probs[FIRST_LETTER_TOKEN + letter], word + trie.alphabet[letter], child))
            longer.sort(key=lambda hypothesis: -hypothesis[0])
            finished += [hypothesis for hypothesis in longer[:beam] if hypothesis[2] < 0]
            finished = sorted(finished, key=lambda hypothesis: -hypothesis[0])[:beam]
            running = [hypothesis for hypothesis in longer[: 2 * beam] if hypothesis[2] >= 0][:beam]
            if not running or (len(finished) == beam and running[0][0] <= finished[-1][0]):
                break
        found.append([Candidate(word, score) for score, word, _ in finished[:candidates]])
    return found


def ctc_table(record: dict[str, Any]) -> str:
    """The table of CTC decoding."""
    trie, base = record["trie"], record["ctc"][0]["seconds_per_word"][0]
    rows = []
    for way in record["ctc"]:
        median, low, high = way["seconds_per_word"]
        times = f"{median * 1e3:.3g}", f"{low * 1e3:.3g} to {high * 1e3:.3g}", f"{median / base:.3g}"
        rows.append([way["way"], *times, f"{way['found']:.2f}", str(way["words"])])
    title = (
        f"CTC with {trie['words']} words: {trie['nodes']} nodes, {trie['bytes'] / 2**20:.2g} MiB, "
        f"built in {trie['build_seconds']:.2g} s"
    )
    return render_table(title, ["decoding", "ms per word", "quartiles", "ratio", "found", "words"], rows)


def generate_table(record: dict[str, Any]) -> str:
    """The table of the encoder-decoder."""
    found = record["generate"]
    base = found["seconds_per_word"]["batched, cached"][0]
    rows = [
        [name, f"{median * 1e3:.3g}", f"{low * 1e3:.3g} to {high * 1e3:.3g}", f"{median / base:.3g}"]
        for name, (median, low, high) in found["seconds_per_word"].items()
    ]
    title = f"Encoder-decoder, beam {found['beam']}; equal results: {'yes' if found['equal'] else 'no'}"
    return render_table(title, ["decoding", "ms per word", "quartiles", "ratio"], rows)


if __name__ == "__main__":
    sys.exit(main())
