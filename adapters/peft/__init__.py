"""A PEFT tuner for tensor-train deltas, on any architecture that PEFT adapts.

from peft import get_peft_model
from adapters.peft import TensorTrainConfig            registers the method TT_LORA
model = get_peft_model(model, TensorTrainConfig(rank=4, target_modules=["q_proj", "v_proj"]))
model.save_pretrained("out")                           adapter tensors only
model = model.merge_and_unload()                       a plain model again

An adapter that ``adapters.save`` wrote becomes one of PEFT's by ``to_peft``, and the other way round by ``from_peft``.

Import this before loading such an adapter by PeftModel, AutoPeftModel or transformers' ``load_adapter``. PEFT is an
optional dependency: ``import adapters`` does not import this package.
"""

from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.conversion import from_peft, to_peft
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.model import TensorTrainModel
from adapters.peft.registration import register

__all__ = ["TensorTrainConfig", "TensorTrainModel", "TensorTrainPeftLinear", "from_peft", "register", "to_peft"]

register()
