"""A PEFT tuner for tensor-train deltas, on any architecture that PEFT adapts.

    from peft import get_peft_model
    from adapters.peft import TensorTrainConfig            registers the method TT_LORA
    model = get_peft_model(model, TensorTrainConfig(rank=4, target_modules=["q_proj", "v_proj"]))
    model.save_pretrained("out")                           adapter tensors only
    model = model.merge_and_unload()                       export: a plain model without adapters

``to_peft`` converts a folder of ``adapters.save`` to one of PEFT, and ``from_peft`` converts it back. ``export_lora``
writes either as LoRA, for vLLM and llama.cpp.

Import this package before loading such an adapter by PeftModel, AutoPeftModel or transformers' ``load_adapter``. PEFT
is an optional dependency, so ``import adapters`` does not import it.
"""

from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.conversion import from_peft, to_peft
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.lora_export import export_lora
from adapters.peft.model import TensorTrainModel
from adapters.peft.older_peft import warn_of_older_peft
from adapters.peft.registration import register

__all__ = [
    "TensorTrainConfig",
    "TensorTrainModel",
    "TensorTrainPeftLinear",
    "export_lora",
    "from_peft",
    "register",
    "to_peft",
]

register()
warn_of_older_peft()
