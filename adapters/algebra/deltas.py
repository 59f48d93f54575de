"""Adapters as vectors: read from folders and models, rounded, reshaped, written to folders.

    x = Deltas.read("a")        W -> W + T,  b -> b + c  of every adapted linear; see ``adapters.algebra.vectors``
    round, reshaped             T' close to T, of other ranks or factors, and || T - T' ||
    to_low_rank                 T = B A exactly
    per_linear                  T of each linear, from one tensor for the whole model (``adapters.algebra.sites``)

Cores are float64 in memory and float32 in a folder. Sums and differences of such vectors are the task arithmetic of
Ilharco et al. 2022 (arXiv:2212.04089).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

import t3nsor as t3
from adapters.algebra.description import chosen_shape
from adapters.algebra.folders import Directory, read_deltas, write_deltas
from adapters.algebra.live import live_deltas
from adapters.algebra.lora import write_lora
from adapters.algebra.report import Approximation, ApproximationReport
from adapters.algebra.vectors import DeltaVector
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from t3nsor.shapes import RawShape


class Deltas(DeltaVector):
    """The deltas of an adapter: a ``DeltaVector`` that is read from and written to folders.

    Arguments and errors are those of ``DeltaVector``.
    """

    @classmethod
    def read(cls, directory: Directory, task: str | None = None) -> "Deltas":
        """Read the deltas of a saved adapter; its base model is not needed.

        Args:
            directory: written by ``adapters.save`` (of the kind tt_lora), or by PEFT's ``save_pretrained`` (of our
                tuner, or LoRA).
            task: whose modules are read, of an adapter with modules by task; None for those of all tasks.

        Raises:
            CheckpointError: the folder cannot be read, or holds modules other than deltas of linears.
            ValueError: a value is not finite.
        """
        return cls(*read_deltas(directory, task))

    @classmethod
    def of(cls, model: nn.Module) -> "Deltas":
        """Return the deltas that are active in a model adapted by ``adapters.attach`` or by our PEFT tuner.

        Raises:
            ConfigurationError: none is active, or the model has adapters other than deltas of linears.
        """
        return cls(*live_deltas(model))

    def write(self, directory: Directory, like: Directory) -> None:
        """Write an adapter that loads like the one in ``like``, each file completely or not at all.

        Args:
            directory: created if missing.
            like: a folder that ``read`` supports; the new one is of the same kind (``adapters.save``, our tuner, LoRA)
                and for the same base model.

        Raises:
            CheckpointError: ``like`` cannot be read, or its base has no linears of these paths and sizes.
        """
        write_deltas(directory, like, self._trains, self.biases, self.sites)

    def write_lora(self, directory: Directory, like: Directory | None = None) -> None:
        """Write a folder of PEFT's LoRA: exact, at the largest matrix rank of a delta, with alpha = r.

        For a folder that vLLM and llama.cpp read too, see ``adapters.peft.to_lora``.

        Args:
            directory: created if missing.
            like: a folder of PEFT; base model and task type are taken from it.
        """
        self._check_per_linear("A folder of LoRA has factors for each linear")
        write_lora(Path(directory), None if like is None else Path(like), self._trains, self.biases)

    def round(
        self, max_rank: int | Sequence[int] | None = None, rel_tol: float | None = None
    ) -> tuple["Deltas", ApproximationReport]:
        """Return deltas of smaller ranks by TT-rounding, and the error; biases are unchanged.

        Args:
            max_rank, rel_tol: see ``TensorTrain.round``, for each linear. Without max_rank each error is at most
                rel_tol times the norm of its own delta, and so is the total error.
        """
        return self._approximated({path: train.round(max_rank, rel_tol) for path, train in self.items()})

    def to_low_rank(self) -> "Deltas":
        """Return the same deltas as products of two factors, raw shape ((1, out), (in, 1)), at their matrix ranks."""
        self._check_per_linear("Low-rank factors (out, r) and (r, in) are those of one linear")
        return Deltas({path: t3.from_low_rank(*t3.to_low_rank(train)) for path, train in self.items()}, self.biases)

    def per_linear(self) -> "Deltas":
        """Return the deltas of the linears, a train for each; without site modes, the adapter itself."""
        if self.sites is None:
            return self
        (train,) = self.values()
        return Deltas({path: self.sites.train_at(train, path) for path in self.sites.indices}, self.biases)

    def reshaped(
        self,
        raw_shape: Sequence[Sequence[int]] | Mapping[str, RawShape] | None = None,
        d: int | None = None,
        shape_mode: str | None = None,
        max_rank: int | Sequence[int] | None = None,
        rel_tol: float | None = None,
    ) -> tuple["Deltas", ApproximationReport]:
        """Return deltas with other factors by the TT-SVD of each dense delta, and the error.

        Args:
            raw_shape, d, shape_mode: see the fields of tt_lora; linears of swapped sizes use the swapped raw_shape. Or
                a raw shape for each path.
            max_rank, rel_tol: see ``t3nsor.tt_svd``, for each linear.

        Raises:
            ConfigurationError: the shape does not fit a linear.
        """
        self._check_per_linear("A raw shape is that of one linear")
        if isinstance(raw_shape, Mapping):
            return self._decomposed({path: raw_shape[path] for path in self}, max_rank, rel_tol)
        config = TensorTrainLoRAConfig(
            raw_shape=None if raw_shape is None else tuple(map(tuple, raw_shape)),
            d=d,
            shape_mode=shape_mode,
            rank=max_rank if isinstance(max_rank, int) else TensorTrainLoRAConfig.rank,
        )
        shapes = {path: chosen_shape(config, *train.shape) for path, train in self.items()}
        return self._decomposed(shapes, max_rank, rel_tol)

    def __repr__(self) -> str:
        ranks = max((max(train.ranks) for train in self.values()), default=0)
        if self.sites is not None:
            return f"Deltas(one tensor for {len(self.sites.indices)} linears, ranks up to {ranks})"
        return f"Deltas({len(self)} linears, {len(self.biases)} biases, ranks up to {ranks})"

    def _decomposed(
        self, shapes: Mapping[str, RawShape], max_rank: int | Sequence[int] | None, rel_tol: float | None
    ) -> tuple["Deltas", ApproximationReport]:
        return self._approximated(
            {path: t3.tt_svd(train.full(), shapes[path], max_rank, rel_tol) for path, train in self.items()}
        )

    def _approximated(self, trains: dict[str, t3.TensorTrain]) -> tuple["Deltas", ApproximationReport]:
        report = ApproximationReport({path: Approximation.of(self[path], trains[path]) for path in self})
        return Deltas(trains, self.biases, self.sites), report

    def _check_per_linear(self, rule: str) -> None:
        if self.sites is not None:
            raise ValueError(f"{rule}; got one tensor for the whole model: use per_linear() first.")
