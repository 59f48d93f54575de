"""The words that can be swiped on a layout, how frequent they are, and how they are displayed.

A word is typed with letters of the layout's alphabet: "don't" types "dont", and "Café" types "cafe" where é has no key.
If several displayed forms are typed alike, the most frequent one is displayed and their counts add up.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters import ConfigurationError
from seq2seq.swipe.keyboards.layout import Layout

SILENT = frozenset("'’ʼ`´-‐‑")
"""Apostrophes and hyphens, which nobody swipes over unless the layout has them."""


@dataclass(frozen=True)
class Lexicon:
    """A lexicon.

    Args:
        words: typed words, distinct and sorted by code points.
        log_frequencies: (words,) float32, natural logarithm of the share of each word.
        displayed: how each word is written, such as "don't" for "dont".
        untypable: the words that were left out because a letter has no key, the most frequent first.

    Raises:
        ConfigurationError: there is no word, or the lists do not belong together.
    """

    words: list[str]
    log_frequencies: np.ndarray
    displayed: list[str]
    untypable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.words or not self.words[0]:
            raise ConfigurationError(
                f"A lexicon has words of at least one letter; got {self.words[:1]}: give the layout's own language."
            )
        if any(first >= second for first, second in zip(self.words, self.words[1:], strict=False)):
            raise ConfigurationError(
                "The words of a lexicon are distinct and sorted; got others: use Lexicon.from_counts."
            )
        lengths = len(self.words), len(self.log_frequencies), len(self.displayed)
        if len({*lengths}) > 1 or not np.isfinite(self.log_frequencies).all():
            raise ConfigurationError(
                "A lexicon has one displayed form and one finite log-frequency for each word; got "
                f"{lengths[0]} words, {lengths[1]} log-frequencies and {lengths[2]} displayed forms: use "
                "Lexicon.from_counts."
            )

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def from_counts(cls, counts: Iterable[tuple[str, float]], layout: Layout) -> "Lexicon":
        """The lexicon of displayed words with their counts, which are positive.

        Raises:
            ConfigurationError: no word can be typed on the layout.
        """
        total: dict[str, float] = {}
        most: dict[str, tuple[float, str]] = {}
        untypable: dict[str, float] = {}
        for word, count in counts:
            displayed = unicodedata.normalize("NFC", word)
            letters = typed(displayed, layout.alphabet)
            if not letters:
                untypable[displayed] = untypable.get(displayed, 0) + count
                continue
            total[letters] = total.get(letters, 0) + count
            if letters not in most or count > most[letters][0]:
                most[letters] = count, displayed
        left_out = tuple(sorted(untypable, key=lambda word: -untypable[word]))
        if not total:
            raise ConfigurationError(
                f"A lexicon has words that can be typed on layout {layout.name!r}; got none, but {len(left_out)} "
                f"others{': ' if left_out else ''}{', '.join(left_out[:5])}: its letters are {layout.alphabet!r}."
            )
        words = sorted(total)
        frequencies = np.array([total[word] for word in words])
        log_frequencies = np.log(frequencies / frequencies.sum()).astype(np.float32)
        return cls(words, log_frequencies, [most[word][1] for word in words], left_out)

    @classmethod
    def from_file(cls, path: str | Path, layout: Layout) -> "Lexicon":
        """The lexicon of a text file in UTF-8 with a line "word<TAB>count" for each word; empty lines are skipped.

        Raises:
            ConfigurationError: the file cannot be read, or a line is of another form.
        """
        return cls.from_counts(counts_of_file(Path(path)), layout)

    @classmethod
    def from_wordfreq(cls, language: str, count: int, layout: Layout) -> "Lexicon":
        """The most frequent words of a language of the library wordfreq.

        Args:
            language: a code such as "en".
            count: how many typed words; all if there are fewer.

        Raises:
            ConfigurationError: wordfreq is not installed, or does not have the language.
        """
        if count < 1:
            raise ConfigurationError(f"A lexicon has at least one word; got a count of {count}: 50000 is typical.")
        return cls.from_counts(first_typed(counts_of_wordfreq(language), count, layout), layout)


def typed(word: str, alphabet: str) -> str:
    """The letters that type a word, "" if it cannot be typed.

    A letter without a key is typed without its marks (é as e, but й as itself on a layout that has it); apostrophes and
    hyphens without keys are not typed.
    """
    letters = unicodedata.normalize("NFC", word.lower())
    if set(letters) <= set(alphabet):
        return letters
    found = [_key_of(letter, alphabet) for letter in letters]
    return "" if None in found else "".join(found)


def _key_of(letter: str, alphabet: str) -> str | None:
    if letter in alphabet:
        return letter
    if letter in SILENT:
        return ""
    parts = unicodedata.normalize("NFD", letter)
    base = "".join(part for part in parts if not unicodedata.combining(part))
    return base if set(base) <= set(alphabet) else None


def first_typed(counts: Iterable[tuple[str, float]], count: int, layout: Layout) -> Iterator[tuple[str, float]]:
    """Words with counts, until ``count`` different words are typed."""
    found: set[str] = set()
    for word, frequency in counts:
        letters = typed(word, layout.alphabet)
        if letters and letters not in found:
            if len(found) == count:
                return
            found.add(letters)
        yield word, frequency


def counts_of_file(path: Path) -> Iterator[tuple[str, float]]:
    """The words and counts of a text file; see ``Lexicon.from_file``."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"A lexicon is a readable text file in UTF-8; got {str(path)!r}: {error}.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            word, _, count = line.partition("\t")
            value = _number(count)
            if not word.strip() or not value > 0 or math.isinf(value):
                raise ConfigurationError(
                    f"A line of a lexicon is a word, a tab and a positive number; got {line!r} in line {number} of "
                    f"{str(path)!r}: write {(word.strip() or 'hello') + chr(9) + '1'!r}."
                )
            yield word.strip(), value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def counts_of_wordfreq(language: str) -> list[tuple[str, float]]:
    """The words of a language and their frequencies, the most frequent first; see ``Lexicon.from_wordfreq``."""
    try:
        import wordfreq
    except ImportError as error:
        raise ConfigurationError(
            f"The words of language {language!r} need wordfreq; got an environment without it: "
            "pip install 'tensorized-adapters[swipe]', or give a file of words and counts."
        ) from error
    known = wordfreq.available_languages()
    if language not in known:
        raise ConfigurationError(
            f"A language is one that wordfreq has words of; got {language!r}: known are {', '.join(sorted(known))}."
        )
    return [*wordfreq.get_frequency_dict(language, wordlist="best").items()]
