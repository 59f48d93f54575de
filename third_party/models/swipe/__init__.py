"""Models that read the trace of a finger over a keyboard and write a word, on T5's blocks.

configuration     alphabet, features and sizes
features          the feature sets, of those of ``keys`` and ``path``
keys              how a point lies to the key of each letter
path              where a point lies, and how it moves
encoder           the features as inputs of T5's encoder
conformer         that encoder with convolutions
ctc               an encoder that names a letter in each frame
encoder_decoder   T5 that writes a word letter by letter, with ``generate``
alphabets         the same model for other letters
"""

from transformers import AutoConfig, AutoModel, AutoModelForCTC, AutoModelForSeq2SeqLM

from third_party.models.swipe.alphabets import with_alphabet
from third_party.models.swipe.configuration import SwipeConfig
from third_party.models.swipe.ctc import SwipeCTCOutput, SwipeForCTC
from third_party.models.swipe.encoder_decoder import SwipeForConditionalGeneration
from third_party.models.swipe.features import FEATURES

AutoConfig.register("swipe", SwipeConfig)
AutoModel.register(SwipeConfig, (SwipeForCTC, SwipeForConditionalGeneration))  # by the architecture of a saved folder
AutoModelForCTC.register(SwipeConfig, SwipeForCTC)
AutoModelForSeq2SeqLM.register(SwipeConfig, SwipeForConditionalGeneration)

__all__ = ["FEATURES", "SwipeCTCOutput", "SwipeConfig", "SwipeForCTC", "SwipeForConditionalGeneration", "with_alphabet"]
