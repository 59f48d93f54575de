"""Adapters as vectors: read from folders and models, rounded, brought to other shapes, written to folders.

    x = Deltas.read("a")        W -> W + T,  b -> b + c  of every adapted linear; see ``adapters.algebra.vectors``
    round, reshaped             T' near T at other ranks or factors, and || T - T' ||
    to_low_rank                 T = B A exactly
    per_linear                  of one tensor for the whole model, see ``adapters.algebra.sites``, its linears' T

Cores are float64 here and float32 in a folder. Sums and differences of such vectors are the task arithmetic of Ilharco
et al. 2022 (arXiv:2212.04089).
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

import t3nsor as t3
from adapters.algebra.description import chosen_shape
from adapters.algebra.folders import Directory, read_deltas, write_deltas
from adapters.algebra.live import live_deltas
from adapters.algebra.peft_folders import write_lora
from adapters.algebra.report import Approximation, ApproximationReport
from adapters.algebra.vectors import DeltaVector
from adapters.kinds.tensor_train import TensorTrainLoRAConfig


class Deltas(DeltaVector):
    """The deltas of an adapter: a ``DeltaVector`` that comes from and goes to folders.

    Args and errors are those of ``DeltaVector``.
    """

    @classmethod
    def read(cls, directory: Directory, task: str | None = None) -> "Deltas":
        """The deltas of a saved adapter, without its base model.

        Args:
            directory: written by ``adapters.save`` (of the kind tt_lora), or by PEFT's ``save_pretrained`` (of our
                tuner, or LoRA).
            task: of an adapter with modules by task, the one whose modules act; None for those of all tasks.

        Raises:
            CheckpointError: the folder cannot be read, or holds what is no delta of linears.
            ValueError: it holds numbers that are not finite.
        """
        return cls(*read_deltas(directory, task))

    @classmethod
    def of(cls, model: nn.Module) -> "Deltas":
        """The deltas that act in an adapted model now: by ``adapters.attach``, or by our tuner in PEFT.

        Raises:
            ConfigurationError: the model has none, or other adapters than deltas of linears.
        """
        return cls(*live_deltas(model))

    def write(self, directory: Directory, like: Directory) -> None:
        """Write an adapter that loads as the one in ``like`` does, each file whole or not at all.

        Args:
            directory: made if missing.
            like: a folder that ``read`` takes; its kind (native, our tuner, LoRA) and what it says of the base model
                hold for the new one too.

        Raises:
            CheckpointError: ``like`` cannot be read, or its base has no linears of these paths and sizes.
        """
        write_deltas(directory, like, self._trains, self.biases, self.sites)

    def write_lora(self, directory: Directory, like: Directory | None = None) -> None:
        """Write a folder of PEFT's LoRA: exact, at the matrix rank of each delta, with alpha = r.

        Args:
            directory: made if missing.
            like: a folder of PEFT whose base model and task type hold for the new one too.
        """
        self._refuse_sites("A folder of LoRA has factors for each linear")
        write_lora(Path(directory), None if like is None else Path(like), self._trains, self.biases)

    def round(
        self, max_rank: int | Sequence[int] | None = None, rel_tol: float | None = None
    ) -> tuple["Deltas", ApproximationReport]:
        """Trains of smaller ranks near these, by TT-rounding, and what that cost; biases stay as they are.

        Args:
            max_rank, rel_tol: as ``TensorTrain.round`` takes them, for each linear. Without a cap each error is at most
                rel_tol times the norm of its own delta, and so is that of all.
        """
        return self._approximated({path: train.round(max_rank, rel_tol) for path, train in self.items()})

    def to_low_rank(self) -> "Deltas":
        """The same deltas as products of two factors, raw shape ((1, out), (in, 1)): exact, at their matrix ranks."""
        self._refuse_sites("Factors (out, r) and (r, in) are those of one linear")
        return Deltas({path: t3.from_low_rank(*t3.to_low_rank(train)) for path, train in self.items()}, self.biases)

    def per_linear(self) -> "Deltas":
        """Of an adapter with site modes the deltas of its linears, a train for each; any other one itself."""
        if self.sites is None:
            return self
        (train,) = self.values()
        return Deltas({path: self.sites.train_at(train, path) for path in self.sites.indices}, self.biases)

    def reshaped(
        self,
        raw_shape: Sequence[Sequence[int]] | None = None,
        d: int | None = None,
        shape_mode: str | None = None,
        max_rank: int | Sequence[int] | None = None,
        rel_tol: float | None = None,
    ) -> tuple["Deltas", ApproximationReport]:
        """Trains of other factors near these, by the TT-SVD of one dense delta after the other, and what that cost.

        Args:
            raw_shape, d, shape_mode: as the fields of tt_lora: raw_shape is taken swapped by linears of swapped sizes.
            max_rank, rel_tol: as ``t3nsor.tt_svd`` takes them, for each linear.

        Raises:
            ConfigurationError: the shape does not fit a linear.
        """
        self._refuse_sites("A raw shape is that of one linear")
        config = TensorTrainLoRAConfig(
            raw_shape=None if raw_shape is None else tuple(map(tuple, raw_shape)),
            d=d,
            shape_mode=shape_mode,
            rank=max_rank if isinstance(max_rank, int) else TensorTrainLoRAConfig.rank,
        )
        shapes = {path: chosen_shape(config, *train.shape) for path, train in self.items()}
        return self._approximated(
            {path: t3.tt_svd(train.full(), shapes[path], max_rank, rel_tol) for path, train in self.items()}
        )

    def __repr__(self) -> str:
        ranks = max((max(train.ranks) for train in self.values()), default=0)
        if self.sites is not None:
            return f"Deltas(one tensor for {len(self.sites.indices)} linears, ranks up to {ranks})"
        return f"Deltas({len(self)} linears, {len(self.biases)} biases, ranks up to {ranks})"

    def _approximated(self, trains: dict[str, t3.TensorTrain]) -> tuple["Deltas", ApproximationReport]:
        report = ApproximationReport({path: Approximation.of(self[path], trains[path]) for path in self})
        return Deltas(trains, self.biases, self.sites), report

    def _refuse_sites(self, rule: str) -> None:
        if self.sites is not None:
            raise ValueError(f"{rule}; got one tensor for the whole model: take per_linear() first.")
