"""Evaluation with the adapters merged into the base weights, at the dense model's cost; unmerged afterwards."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

import adapters
from adapters.merging import non_linear_adapters
from adapters.sharded import is_sharded

logger = logging.getLogger(__name__)


class MergedEvaluationMixin:
    """Mixin over transformers' ``Trainer``; a row counts once, however many processes share the rows."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.merged_for_evaluation():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self.merged_for_evaluation():
            return super().predict(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as transformers does, without the rows that pad the last batch of several processes."""
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        with self._all_rows_in_order():
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        with self._all_rows_in_order():
            return super().get_test_dataloader(*args, **kwargs)

    @contextlib.contextmanager
    def _all_rows_in_order(self) -> Iterator[None]:
        """Make loaders in the body that keep the last batch and the order: these two arguments are about training.

        transformers sorts rows by length in evaluation too, but a prediction belongs to the row of its number.
        """
        in_evaluation = {"dataloader_drop_last": False, "train_sampling_strategy": "random"}
        in_training = {name: getattr(self.args, name) for name in in_evaluation}
        vars(self.args).update(in_evaluation)
        try:
            yield
        finally:
            vars(self.args).update(in_training)

    @contextlib.contextmanager
    def merged_for_evaluation(self) -> Iterator[None]:
        """Merge for the body, also if it raises; adapters that are not linear are evaluated unmerged.

        A model that is sharded over processes is evaluated unmerged too. When the batches in the body belong to several
        tasks, each switch merges the next task's adapters.
        """
        reasons = ["shards"] if is_sharded(self.model) else non_linear_adapters(self.model)
        if reasons:
            logger.info("Evaluating unmerged because of %s.", ", ".join(reasons))
            yield
            return
        with adapters.merged(self.model):
            yield

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The arguments of the model's forward for a batch; a trainer that routes batches overrides it."""
        return inputs

    @torch.no_grad()
    def sample_logits(self, rows: Dataset) -> Tensor:
        """The logits of rows as one batch, float32, in evaluation mode."""
        batch = self.data_collator(list(self._remove_unused_columns(rows)))
        batch = self.model_inputs(self._prepare_inputs(batch))
        self.model.eval()
        return self.summed_loss(self.model, batch)[1].logits.float()

    @torch.no_grad()
    def merge_difference(self, samples: Iterable[Dataset]) -> float | None:
        """Largest difference between merged and unmerged logits, as a share of the largest logit.

        Args:
            samples: rows, each dataset one batch; the largest difference of all batches counts.

        Returns:
            None if an adapter is not linear and so cannot be merged, if the model is sharded, or if there is nothing to
            compare.
        """
        if is_sharded(self.model) or non_linear_adapters(self.model):
            return None
        differences = []
        for rows in samples:
            unmerged = self.sample_logits(rows)
            with adapters.merged(self.model):
                merged = self.sample_logits(rows)
            if (largest := unmerged.abs().max()) > 0:
                differences.append(float((merged - unmerged).abs().max() / largest))
        return max(differences, default=None)
