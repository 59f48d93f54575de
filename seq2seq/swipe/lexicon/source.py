"""The key ``lexicon``: where the words come from.

{"language": "en", "words": 20000}                  {"file": "words.tsv"}
"""

from dataclasses import asdict, dataclass
from typing import Any

from adapters.validation import from_json, refuse
from seq2seq.errors import refusing
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.tasks.keys import located

WHERE = "the lexicon"
WORDS = 20000


@dataclass(frozen=True, kw_only=True)
class LexiconSource:
    """Where the words come from.

    Args:
        language: a language of ``wordfreq``, such as "en"; None for that of the layout.
        words: the most frequent so many words of the language.
        file: lines of word, tab, count, in place of a language.
    """

    language: str | None = None
    words: int = WORDS
    file: str | None = None

    def __post_init__(self) -> None:
        if self.language is not None and self.file is not None:
            refuse("lexicon", "has a language or a file", "both", "leave one out", "the run")
        if self.words != WORDS and self.file is not None:
            refuse("words", "is of a language; a file has as many as it has lines", self.words, "leave it out", WHERE)
        if self.words < 2:
            refuse("words", "is at least 2", self.words, "raise it", WHERE)

    @classmethod
    def from_dict(cls, values: Any) -> "LexiconSource":
        """Read the key's JSON form."""
        if not isinstance(values, dict):
            refuse("lexicon", "is an object", repr(values), 'write {"language": "en", "words": 20000}', "the run")
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    def load(self, layout: Layout) -> Lexicon:
        """The words that can be typed on a layout."""
        if self.file is not None:
            with refusing("lexicon.file", self.file):
                return Lexicon.from_file(located(self.file), layout)
        return Lexicon.from_wordfreq(self.language or layout.language, self.words, layout)
