"""SwipeConfig: what a model of swipes reads, and the sizes of its T5 blocks.

    SwipeConfig(alphabet="abcdefghijklmnopqrstuvwxyz")                          # key_weights, a transformer encoder
    SwipeConfig(alphabet="...", features="nearest", encoder="conformer", d_model=144, num_layers=5)

Letters are numbered by their place in ``alphabet``. CTC's classes are the blank (0) and 1 + letter; the tokens of a
decoder are padding, which it also starts from (0), the end of a word (1), and 2 + letter.
"""

from typing import Any

from transformers import T5Config

from adapters.validation import check_type, nearest_name, refuse
from third_party.models.swipe.features import FEATURES

WHERE = "a swipe model"
ENCODERS = ("transformer", "conformer")
BLANK, FIRST_LETTER = 0, 1
"""CTC's classes."""
PAD, END, FIRST_LETTER_TOKEN = 0, 1, 2
"""The tokens of a decoder."""
IGNORED = -100
"""Padding of labels."""


class SwipeConfig(T5Config):
    """The configuration of ``SwipeForCTC`` and ``SwipeForConditionalGeneration``.

    Args:
        alphabet: the letters that can be typed, each once; they are numbered in this order.
        features: what the model computes from points and keys, a key of ``FEATURES``.
        rate: points per second of every trace.
        encoder: "transformer", T5's encoder; "conformer", the same with a convolution after each block.
        kernel_size: frames that a convolution of the conformer reads, an odd number.
        layout: the name of the layout that it was trained on, for those who load it; the model itself reads boxes.
        d_model, num_layers, num_heads, d_ff, dropout_rate: as in T5; a head has d_model / num_heads features.
        num_decoder_layers: of the encoder-decoder; None for ``num_layers``.
        kwargs: other keys of T5Config.

    Raises:
        ConfigurationError: an option is unknown or out of range.
    """

    model_type = "swipe"

    alphabet: str = "abcdefghijklmnopqrstuvwxyz"
    features: str = "key_weights"
    rate: float = 30.0
    encoder: str = "transformer"
    kernel_size: int = 9
    layout: str | None = None

    def __init__(
        self,
        alphabet: str = "abcdefghijklmnopqrstuvwxyz",
        features: str = "key_weights",
        rate: float = 30.0,
        encoder: str = "transformer",
        kernel_size: int = 9,
        layout: str | None = None,
        d_model: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        d_ff: int = 256,
        dropout_rate: float = 0.1,
        num_decoder_layers: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not check_type("alphabet", alphabet, str, WHERE) or len(set(alphabet)) < len(alphabet):
            refuse(
                "alphabet", "has at least one letter, and each once", repr(alphabet), "write each letter once", WHERE
            )
        for key, value, known in (("features", features, FEATURES), ("encoder", encoder, ENCODERS)):
            if value not in known:
                refuse(key, "is a known name", repr(value), nearest_name(value, known), WHERE)
        check_type("layout", layout, str | None, WHERE)
        if check_type("rate", rate, float, WHERE) <= 0:
            refuse("rate", "must be positive", rate, "30 points per second is typical", WHERE)
        sizes = {"d_model": d_model, "num_layers": num_layers, "num_heads": num_heads, "d_ff": d_ff}
        sizes |= {"num_decoder_layers": num_layers if num_decoder_layers is None else num_decoder_layers}
        for key, value in {**sizes, "kernel_size": kernel_size}.items():
            if check_type(key, value, int, WHERE) < 1:
                refuse(key, "must be at least 1", value, "write a positive number", WHERE)
        if d_model % num_heads:
            refuse("d_model", "is a multiple of num_heads", f"{d_model} and {num_heads} heads", "change one", WHERE)
        if kernel_size % 2 == 0:
            refuse("kernel_size", "is odd, as it is centred", kernel_size, f"write {kernel_size + 1}", WHERE)
        if not 0 <= check_type("dropout_rate", dropout_rate, float, WHERE) < 1:
            refuse("dropout_rate", "is at least 0 and below 1", dropout_rate, "0.1 is typical", WHERE)
        tokens = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
        derived = {"vocab_size": FIRST_LETTER_TOKEN + len(alphabet), "d_kv": d_model // num_heads, **tokens}
        super().__init__(**{**kwargs, **sizes, **derived, "dropout_rate": dropout_rate})
        self.alphabet, self.features, self.rate, self.encoder = alphabet, features, float(rate), encoder
        self.kernel_size, self.layout = kernel_size, layout
