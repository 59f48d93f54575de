"""Tiny random models of every known architecture, with a batch for each."""

import copy
import functools
import json

import torch
import transformers
from transformers import AutoConfig

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TOKENS = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {**SIZES, **TOKENS}
GROUPED = {**ENCODER, "num_key_value_heads": 1, "head_dim": 12}
BART = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    **TOKENS,
}
CLASSIFIER, LANGUAGE_MODEL = "ForSequenceClassification", "ForCausalLM"
MODELS = {
    "bart": ("BartForConditionalGeneration", BART),
    "opt": ("OPTForCausalLM", {**ENCODER, "ffn_dim": 48, "word_embed_proj_dim": 24}),
    "bert": ("BertForSequenceClassification", ENCODER),
    "roberta": ("RobertaForSequenceClassification", {**ENCODER, "max_position_embeddings": 40}),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, **TOKENS},
    ),
    "mpnet": ("MPNetForSequenceClassification", {**ENCODER, "max_position_embeddings": 40}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 24, "n_layer": 2, "n_head": 2, **TOKENS}),
    "gpt_neox": ("GPTNeoXForCausalLM", ENCODER),
    "llama": ("LlamaForCausalLM", GROUPED),
    "mistral": ("MistralForCausalLM", GROUPED),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", GROUPED),
    "smollm3": ("SmolLM3ForCausalLM", GROUPED),
    "gemma2": ("Gemma2ForCausalLM", GROUPED),
    "gemma3_text": ("Gemma3ForCausalLM", GROUPED),
    "phi3": ("Phi3ForCausalLM", {**ENCODER, "num_key_value_heads": 1}),
    "vit": ("ViTForImageClassification", {**SIZES, "image_size": 8, "patch_size": 4}),
}
"""The class and the configuration of each, by model type."""
UNKNOWN = {
    "mixtral": ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4}),
    "gptj": ("GPTJForCausalLM", {"n_embd": 24, "n_layer": 2, "n_head": 2, "rotary_dim": 4, **TOKENS}),
    "albert": ("AlbertForSequenceClassification", {**ENCODER, "embedding_size": 12}),
    "xlnet": ("XLNetForSequenceClassification", {"d_model": 24, "n_layer": 2, "n_head": 2, "d_inner": 48, **TOKENS}),
    "clip": (
        "CLIPModel",
        {
            "text_config": {**ENCODER, "projection_dim": 16},
            "vision_config": {**SIZES, "image_size": 8, "patch_size": 4, "projection_dim": 16},
            "projection_dim": 16,
        },
    ),
    "encoder-decoder": (
        "EncoderDecoderModel",
        {
            "encoder": {"model_type": "bert", **ENCODER},
            "decoder": {"model_type": "bert", **ENCODER, "is_decoder": True, "add_cross_attention": True},
            "decoder_start_token_id": 1,
            "pad_token_id": 0,
        },
    ),
}
"""Models without an entry in the table of architectures, likewise; the last one has the stacks of two known ones."""


def tiny(name: str, **values) -> torch.nn.Module:
    """A model in evaluation mode, the same at each call; all of its parameters are random, norms and biases too.

    Args:
        name: a key of ``MODELS`` or ``UNKNOWN``.
        values: changes of its configuration.
    """
    device = torch.empty(0).device  # that of a surrounding `with torch.device("meta")`
    return copy.deepcopy(_tiny(name, json.dumps(values, sort_keys=True), device))


@functools.cache
def _tiny(name: str, values: str, device: torch.device) -> torch.nn.Module:
    """The model that is copied, with the changes as JSON: to make it takes longer than to copy it.

    Args:
        device: where torch makes tensors now, as a model on "meta" is another one.
    """
    cls, config = (MODELS | UNKNOWN)[name]
    random = torch.get_rng_state()
    torch.manual_seed(1)
    model = getattr(transformers, cls)(AutoConfig.for_model(name, **{**config, **json.loads(values)}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    torch.set_rng_state(random)
    return model.eval()


def batch_for(name: str) -> dict[str, torch.Tensor]:
    """Inputs of two rows."""
    generator = torch.Generator().manual_seed(2)
    pixels = {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)} if name in ("vit", "clip") else {}
    if name == "vit":
        return pixels
    ids = torch.randint(3, 50, (2, 7), generator=generator)
    targets = {"decoder_input_ids": ids} if name == "encoder-decoder" else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels, **targets}


@torch.no_grad()
def logits(model: torch.nn.Module, name: str) -> torch.Tensor:
    """The logits of that batch."""
    output = model(**batch_for(name))
    return output.logits_per_image if name == "clip" else output.logits
