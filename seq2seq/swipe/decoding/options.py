"""The key ``decoding``: how words are found in what a model says of a trace.

{"beam": 16, "threshold": 12.0, "exact": true}
"""

from dataclasses import asdict, dataclass
from typing import Any

from adapters.validation import from_json, refuse

WHERE = "the decoding"


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How words are found.

    Args:
        beam: prefixes that are kept, see ``seq2seq.swipe.decoding.ctc``.
        threshold: a prefix is dropped too if its log-probability is below that of the best by more than this; None for
            never. Of CTC only.
        exact: whether all words that begin with a prefix of the last beam are scored over all alignments, see
            ``seq2seq.swipe.decoding.exhaustive``. Of CTC with a lexicon only.
        corrected: whether strings that are no words are replaced by words within two edits, in decoding without a
            lexicon, see ``seq2seq.swipe.decoding.rerank``.
        language_weight: of a word's log-frequency in its score; None to choose it on the validation split.
        in_training: whether the loss leaves no probability to what the lexicon excludes, see
            ``seq2seq.swipe.decoding.lexicon_processor``. Of the encoder-decoder only.
    """

    beam: int = 16
    threshold: float | None = None
    exact: bool = False
    corrected: bool = False
    language_weight: float | None = None
    in_training: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.beam <= 4096:
            refuse("beam", "is from 1 to 4096", self.beam, "16 is typical", WHERE)
        for key in ("threshold", "language_weight"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= 1e6:
                refuse(key, "must not be negative", value, "leave it out, or write a positive number", WHERE)

    @classmethod
    def from_dict(cls, values: Any) -> "Decoding":
        """Read the key's JSON form.

        Raises:
            ConfigurationError: a key is unknown, or a value is out of its range.
        """
        if not isinstance(values, dict):
            refuse("decoding", "is an object", repr(values), 'write {"beam": 16}', "the run")
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)
