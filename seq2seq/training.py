"""The trainer of a run, and what is asked of a trained model: answers, metrics, the difference that merging makes."""

from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

import adapters
from seq2seq.metrics import split_metrics
from seq2seq.preparation import Prepared
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.trainers import Seq2SeqTrainer


def make_trainer(
    prepared: Prepared, model: T5ForConditionalGeneration, arguments: Seq2SeqTrainingArguments
) -> Seq2SeqTrainer:
    """The trainer of ``model``; it chooses the best checkpoint by the metrics of generated validation texts."""

    def compute_metrics(prediction: Any) -> dict[str, float]:
        texts = decode(prepared.tokenizer, prediction.predictions)
        return split_metrics(prepared.spec, texts, prepared.splits["validation"])

    return Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.encoded.get("train"),
        eval_dataset=prepared.encoded.get("validation"),
        data_collator=DataCollatorForSeq2Seq(prepared.tokenizer, model=model),
        processing_class=prepared.tokenizer,
        compute_metrics=compute_metrics,
    )


def predict(prepared: Prepared, trainer: Seq2SeqTrainer, split: str) -> tuple[dict[str, float], list[str]]:
    """Metrics of the generated texts of a split, and the texts."""
    while_training, trainer.compute_metrics = trainer.compute_metrics, None  # that one is for the validation split
    try:
        output = trainer.predict(prepared.encoded[split])
    finally:
        trainer.compute_metrics = while_training
    texts = decode(prepared.tokenizer, output.predictions)
    return split_metrics(prepared.spec, texts, prepared.splits[split]), texts


def decode(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> list[str]:
    """Texts of generated ids (rows, length), in which -100 is padding."""
    return tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)


def merge_difference(prepared: Prepared, trainer: Seq2SeqTrainer) -> float | None:
    """Largest difference of merged and unmerged logits on one batch over the largest logit; None if not linear."""
    model = prepared.model
    if adapters.unmergeable(model) is not None:
        return None
    split = next(name for name in ("validation", "test", "train") if name in prepared.encoded)
    rows = prepared.encoded[split].select(range(min(8, len(prepared.encoded[split]))))
    batch = trainer.data_collator(list(rows)).to(model.device)
    model.eval()
    with torch.no_grad():
        unmerged = model(**batch).logits.float()
        with adapters.merged(model):
            merged = model(**batch).logits.float()
    return float((merged - unmerged).abs().max() / unmerged.abs().max())
