"""The architectures whose sublayers are known, one table entry each.

A model is recognised by the names of its modules and not by its class, so a model that wraps a known one is recognised
too. To support another architecture, add an entry to ``ARCHITECTURES``; nothing else names the modules of a model.
Without an entry the linears of a model are known by their names alone, see ``adapters.base.sublayers``.
"""

from torch import nn

from adapters.base.layout import ANY_NAME, Architecture, SublayerLayout

ENCODER_ONLY = {ANY_NAME: "encoder"}
DECODER_ONLY = {ANY_NAME: "decoder"}
BY_NAME = {"encoder": "encoder", "decoder": "decoder"}


def attention(kind: str, module: str, norms: tuple[str, ...], **paths: str) -> SublayerLayout:
    """An attention sublayer, whose linears are below ``module``."""
    return SublayerLayout(kind, tuple((role, f"{module}.{path}") for role, path in paths.items()), norms)


def bert_attention(kind: str, module: str, **paths: str) -> SublayerLayout:
    """An attention sublayer of BERT, whose q, k and v are in another module than o and the norm."""
    return SublayerLayout(
        kind,
        (*((role, f"{module}.self.{path}") for role, path in paths.items()), ("o", f"{module}.output.dense")),
        (f"{module}.output.LayerNorm",),
    )


def feed_forward(norms: tuple[str, ...], *linears: tuple[str, str], optional: tuple[str, ...] = ()) -> SublayerLayout:
    """A feed-forward sublayer, given role and path of its linears."""
    return SublayerLayout("feed_forward", linears, norms, optional)


PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
T5_PROJECTIONS = {"q": "q", "k": "k", "v": "v", "o": "o"}
BERT_FEED_FORWARD = feed_forward(("output.LayerNorm",), ("in", "intermediate.dense"), ("out", "output.dense"))
GATED = (("gate", "mlp.gate_proj"), ("in", "mlp.up_proj"), ("out", "mlp.down_proj"))
SIZES = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
GROUPED_SIZES = (*SIZES, "num_key_value_heads", "head_dim")

T5 = Architecture(
    name="T5",
    model_types=("t5", "mt5", "umt5", "swipe"),
    stacks=BY_NAME,
    blocks="block",
    sublayers="layer",
    layouts=(
        attention("self_attention", "SelfAttention", ("layer_norm",), **T5_PROJECTIONS),
        attention("cross_attention", "EncDecAttention", ("layer_norm",), **T5_PROJECTIONS),
        feed_forward(
            ("layer_norm",),
            ("in", "DenseReluDense.wi"),
            ("gate", "DenseReluDense.wi_0"),
            ("in", "DenseReluDense.wi_1"),
            ("out", "DenseReluDense.wo"),
            optional=("DenseReluDense.wi", "DenseReluDense.wi_0", "DenseReluDense.wi_1"),
        ),
    ),
    final_norms=("final_layer_norm",),
    supports_prompts=True,
    config_keys=(
        "model_type",
        "d_model",
        "d_kv",
        "d_ff",
        "num_heads",
        "num_layers",
        "num_decoder_layers",
        "feed_forward_proj",
    ),
)
BART = Architecture(
    name="BART and OPT",
    model_types=("bart", "mbart", "opt", "pegasus", "blenderbot", "m2m_100"),
    stacks=BY_NAME,
    blocks="layers",
    layouts=(
        attention("self_attention", "self_attn", ("self_attn_layer_norm",), **PROJECTIONS, o="out_proj"),
        attention("cross_attention", "encoder_attn", ("encoder_attn_layer_norm",), **PROJECTIONS, o="out_proj"),
        feed_forward(("final_layer_norm",), ("in", "fc1"), ("out", "fc2")),
    ),
    final_norms=("final_layer_norm", "layer_norm"),
    embedding_norm="layernorm_embedding",
    config_keys=(
        *("model_type", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads"),
        *("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim"),
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim", "word_embed_proj_dim"),
    ),
)
BERT = Architecture(
    name="BERT, RoBERTa and ELECTRA",
    model_types=("bert", "roberta", "xlm-roberta", "camembert", "electra"),
    stacks=ENCODER_ONLY,
    blocks="layer",
    layouts=(
        bert_attention("self_attention", "attention", q="query", k="key", v="value"),
        bert_attention("cross_attention", "crossattention", q="query", k="key", v="value"),
        BERT_FEED_FORWARD,
    ),
    embedding_norm="embeddings.LayerNorm",
    config_keys=(*SIZES, "embedding_size", "is_decoder", "add_cross_attention"),
)
DEBERTA = Architecture(
    name="DeBERTa-v2 and v3",
    model_types=("deberta-v2",),
    stacks=ENCODER_ONLY,
    blocks="layer",
    layouts=(
        bert_attention("self_attention", "attention", q="query_proj", k="key_proj", v="value_proj"),
        BERT_FEED_FORWARD,
    ),
    embedding_norm="embeddings.LayerNorm",
    config_keys=(*SIZES, "relative_attention", "position_biased_input", "share_att_key", "pos_att_type"),
)
DISTILBERT = Architecture(
    name="DistilBERT",
    model_types=("distilbert",),
    stacks=ENCODER_ONLY,
    blocks="layer",
    layouts=(
        attention("self_attention", "attention", ("sa_layer_norm",), q="q_lin", k="k_lin", v="v_lin", o="out_lin"),
        feed_forward(("output_layer_norm",), ("in", "ffn.lin1"), ("out", "ffn.lin2")),
    ),
    embedding_norm="embeddings.LayerNorm",
    config_keys=("model_type", "dim", "n_layers", "n_heads", "hidden_dim"),
)
MPNET = Architecture(
    name="MPNet",
    model_types=("mpnet",),
    stacks=ENCODER_ONLY,
    blocks="layer",
    layouts=(
        attention("self_attention", "attention.attn", ("attention.LayerNorm",), **T5_PROJECTIONS),
        BERT_FEED_FORWARD,
    ),
    embedding_norm="embeddings.LayerNorm",
    config_keys=SIZES,
)
GPT2 = Architecture(
    name="GPT-2",
    model_types=("gpt2",),
    stacks=DECODER_ONLY,
    blocks="h",
    layouts=(
        attention("self_attention", "attn", ("ln_1",), qkv="c_attn", o="c_proj"),
        feed_forward(("ln_2",), ("in", "mlp.c_fc"), ("out", "mlp.c_proj")),
    ),
    final_norms=("ln_f",),
    config_keys=("model_type", "n_embd", "n_layer", "n_head", "n_inner"),
)
GPT_NEOX = Architecture(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    stacks=DECODER_ONLY,
    blocks="layers",
    layouts=(
        attention("self_attention", "attention", ("input_layernorm",), qkv="query_key_value", o="dense"),
        feed_forward(("post_attention_layernorm",), ("in", "mlp.dense_h_to_4h"), ("out", "mlp.dense_4h_to_h")),
    ),
    final_norms=("final_layer_norm",),
    config_keys=SIZES,
)
LLAMA = Architecture(
    name="Llama, Mistral, Qwen and SmolLM3",
    model_types=("llama", "mistral", "qwen2", "qwen3", "smollm3"),
    stacks=DECODER_ONLY,
    blocks="layers",
    layouts=(
        attention("self_attention", "self_attn", ("input_layernorm",), **PROJECTIONS, o="o_proj"),
        feed_forward(("post_attention_layernorm",), *GATED),
    ),
    final_norms=("norm",),
    config_keys=GROUPED_SIZES,
)
GEMMA = Architecture(
    name="Gemma 2 and 3",
    model_types=("gemma2", "gemma3_text"),
    stacks=DECODER_ONLY,
    blocks="layers",
    layouts=(
        attention(
            "self_attention", "self_attn", ("input_layernorm", "post_attention_layernorm"), **PROJECTIONS, o="o_proj"
        ),
        feed_forward(("pre_feedforward_layernorm", "post_feedforward_layernorm"), *GATED),
    ),
    final_norms=("norm",),
    config_keys=GROUPED_SIZES,
)
PHI3 = Architecture(
    name="Phi-3",
    model_types=("phi3",),
    stacks=DECODER_ONLY,
    blocks="layers",
    layouts=(
        attention("self_attention", "self_attn", ("input_layernorm",), qkv="qkv_proj", o="o_proj"),
        feed_forward(("post_attention_layernorm",), ("gate_in", "mlp.gate_up_proj"), ("out", "mlp.down_proj")),
    ),
    final_norms=("norm",),
    config_keys=GROUPED_SIZES,
)
VIT = Architecture(
    name="ViT",
    model_types=("vit",),
    stacks=ENCODER_ONLY,
    blocks="layers",
    layouts=(
        attention("self_attention", "attention", ("layernorm_before",), **PROJECTIONS, o="o_proj"),
        feed_forward(("layernorm_after",), ("in", "mlp.fc1"), ("out", "mlp.fc2")),
    ),
    final_norms=("layernorm",),
    config_keys=SIZES,
)

ARCHITECTURES = (T5, BART, BERT, DEBERTA, DISTILBERT, MPNET, GPT2, GPT_NEOX, GEMMA, LLAMA, PHI3, VIT)
"""Every known architecture."""


def known_stacks(model: nn.Module) -> list[tuple[str, nn.Module, Architecture]]:
    """Path, module and entry of each stack that is laid out like one, in the order of the model.

    Its parts may have different entries, such as a ViT and a BERT that reads its output. If a stack is laid out like
    several, its entry is that of the model's type, or the first one.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    found: dict[str, Architecture] = {}
    for entry in sorted(ARCHITECTURES, key=lambda entry: model_type not in entry.model_types):
        for path, _ in entry.found_stacks(model) or ():
            found.setdefault(path, entry)
    return [(path, module, found[path]) for path, module in model.named_modules() if path in found]
