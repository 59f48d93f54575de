"""Shared code of the examples: draw a batch, train on fresh batches, measure, and print a short table.

A batch holds the keyword arguments of a model's forward, including ``labels``; a function makes one from a generator.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT asks transformers for it

Batch = dict[str, Tensor]
MakeBatch = Callable[[torch.Generator], Batch]


class Measured(NamedTuple):
    """Results of a model on one batch; accuracy is the share of labels that have the largest logit."""

    loss: float
    accuracy: float
    logits: Tensor


def held_out(make_batch: MakeBatch) -> Batch:
    """Make a held-out batch, the same at every call."""
    return make_batch(torch.Generator().manual_seed(1))


def train(model: nn.Module, make_batch: MakeBatch, steps: int, learning_rate: float = 1e-2) -> None:
    """Train with AdamW on a fresh batch each step, with the learning rate decaying linearly to zero."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    model.train()
    for step in range(steps):
        loss = model(**make_batch(generator)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % (steps // 4) == 0:
            print(f"    step {step:>3}   loss {loss.item():.3f}")


@torch.no_grad()
def measure(model: nn.Module, batch: Batch, causal: bool = False) -> Measured:
    """Measure loss, accuracy and logits in evaluation mode; ``causal``: the logits at i predict the label at i + 1."""
    output = model.eval()(**batch)
    logits, labels = (output.logits[:, :-1], batch["labels"][:, 1:]) if causal else (output.logits, batch["labels"])
    counted = labels != -100
    accuracy = (logits.argmax(-1) == labels)[counted].float().mean()
    return Measured(output.loss.item(), accuracy.item(), output.logits)


def trainable_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def report(
    trained: int, base: nn.Module, before: Measured, after: Measured, reloaded: Measured, merged: Measured
) -> dict[str, Any]:
    """Print the table and return its values."""
    frozen = sum(parameter.numel() for parameter in base.parameters())
    difference = ((merged.logits - after.logits).abs().max() / after.logits.abs().max()).item()
    identical = torch.equal(reloaded.logits, after.logits)
    print(f"trained    {trained:,} parameters beside {frozen:,} frozen ones, {trained / frozen:.1%}")
    print(f"loss       {before.loss:.3f} before, {after.loss:.3f} after")
    print(f"accuracy   {before.accuracy:.1%} before, {after.accuracy:.1%} after")
    print(f"reloaded   logits {'identical' if identical else 'differ'}")
    print(f"merged     logits {f'within {difference:.0e} of the largest' if difference else 'identical'}")
    return {
        "trained": trained,
        "loss_before": before.loss,
        "loss_after": after.loss,
        "accuracy_after": after.accuracy,
        "reload_identical": identical,
        "merge_difference": difference,
    }
