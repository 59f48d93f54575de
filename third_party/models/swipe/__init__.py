"""Models that read the trace of a finger over a keyboard and write a word, on T5's blocks.

configuration   alphabet, features and sizes
features        from points and keys to numbers
derivatives     those in time
encoder         the features as inputs of T5's encoder
ctc             an encoder that names a letter in each frame
"""

from transformers import AutoConfig, AutoModel, AutoModelForCTC

from third_party.models.swipe.configuration import SwipeConfig
from third_party.models.swipe.ctc import SwipeCTCOutput, SwipeForCTC
from third_party.models.swipe.features import FEATURES

AutoConfig.register("swipe", SwipeConfig)
AutoModel.register(SwipeConfig, SwipeForCTC)
AutoModelForCTC.register(SwipeConfig, SwipeForCTC)

__all__ = ["FEATURES", "SwipeCTCOutput", "SwipeConfig", "SwipeForCTC"]
