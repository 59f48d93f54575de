"""The heads of a model: the output projection of a language model, and what a task adds over the body.

    BertForSequenceClassification      body bert           head classifier                        no output projection
    RobertaForSequenceClassification   body roberta        head classifier.dense, .out_proj       no output projection
    LlamaForCausalLM                   body model          no head                                lm_head

transformers knows both: ``get_output_embeddings`` and ``base_model``.
"""

from torch import nn
from transformers import PreTrainedModel


def output_projection(model: nn.Module) -> str:
    """The path of the linear that gives the logits of a language model; "" if there is none."""
    for module in model.modules():
        found = module.get_output_embeddings() if isinstance(module, PreTrainedModel) else None
        if isinstance(found, nn.Module):
            return next((path for path, other in model.named_modules() if other is found), "")
    return ""


def head_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters outside of the model's body, but for those of an output projection and of adapters."""
    for path, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and module.base_model is not module:
            prefix = f"{path}." if path else ""
            body = {id(parameter) for parameter in module.base_model.parameters()}
            projection = f"{output_projection(model)}."
            return [
                prefix + name
                for name, parameter in module.named_parameters()
                if id(parameter) not in body
                and not (prefix + name).startswith((projection, "shared_parameters."))
                and ".tasks." not in name
            ]
    return []
