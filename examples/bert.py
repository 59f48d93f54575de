"""Train BERT to classify whether a sentence has more a's than b's.

    python -m examples.bert

The adapter is a canonical polyadic ("cp") delta, a sum of r products of factors; the new classification head is fully
trained and saved with it.
"""

import tempfile
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from adapters.peft import TensorTrainConfig
from examples._loop import Batch, held_out, measure, report, train, trainable_parameters

START, A, B, OTHERS = 1, 2, 3, range(4, 12)
SETTING = {
    "format": "cp",
    "rank": 8,
    "target_modules": ["query", "value", "intermediate.dense", "output.dense"],
    "modules_to_save": ["classifier"],
}


def base() -> BertForSequenceClassification:
    """Make a small BERT with random weights, the same at every call."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForSequenceClassification(
        BertConfig(vocab_size=OTHERS.stop, max_position_embeddings=16, initializer_range=0.1, num_labels=2, **size)
    )


def sentences(generator: torch.Generator) -> Batch:
    """Draw 64 sentences of 12 tokens, of which three in five are an a or a b."""
    letters = torch.randint(A, B + 1, (64, 12), generator=generator)
    others = torch.randint(OTHERS.start, OTHERS.stop, (64, 12), generator=generator)
    tokens = torch.where(torch.rand(64, 12, generator=generator) < 0.6, letters, others)
    tokens[:, 0] = START
    return {"input_ids": tokens, "labels": ((tokens == A).sum(1) > (tokens == B).sum(1)).long()}


def main() -> dict[str, Any]:
    model = get_peft_model(base(), TensorTrainConfig(**SETTING))
    trained, test = trainable_parameters(model), held_out(sentences)
    before = measure(model, test)
    train(model, sentences, steps=120)
    after = measure(model, test)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        reloaded = measure(PeftModel.from_pretrained(base(), folder), test)
    merged = measure(model.merge_and_unload(), test)
    return report(trained, base(), before, after, reloaded, merged)


if __name__ == "__main__":
    main()
