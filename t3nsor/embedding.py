"""An embedding table as a tensor train, with rows looked up in its cores; with several cores it is never built.

row i = G_1[:, i_1] G_2[:, i_2] ... G_d[:, i_d]     (i_1, ..., i_d) are the digits of i in base (m_1, ..., m_d)
indices (...) -> rows (..., embedding_dim)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .contraction import gather_rows
from .module import TTModule
from .shapes import check_product, check_raw_shape, factorize, index_below, positive_int, suggest_shape


class TTEmbedding(TTModule):
    """A replacement for `nn.Embedding` whose table (num_embeddings, embedding_dim) is a tensor train.

    Args:
        num_embeddings, embedding_dim: the size of the table.
        d: the number of cores; used only if raw_shape is None.
        tt_rank: an int, clipped at each bond, or a list of d - 1 useful ranks, see `train_ranks`.
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)); by default both sides are factorised. The m's may multiply to
            more than num_embeddings: the additional rows are never looked up.
        pad_rows: pad the number of rows to one that splits evenly (`suggest_shape`); used only without raw_shape.
        padding_idx: this row is zero and has no gradient, in look-ups and in `full()`; negative counts from the end.
        init: a standard deviation for the entries (1.0 as in `nn.Embedding`), or another init of `initialize_`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        raw_shape: Sequence[Sequence[int]] | None = None,
        pad_rows: bool = False,
        padding_idx: int | None = None,
        init: str | float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        num_embeddings = positive_int(num_embeddings, "num_embeddings")
        embedding_dim = positive_int(embedding_dim, "embedding_dim")
        if raw_shape is None:
            rows = suggest_shape(num_embeddings, d) if pad_rows else factorize(num_embeddings, d)
            raw_shape = (rows, factorize(embedding_dim, d))
        raw_shape = check_raw_shape(raw_shape)
        if math.prod(raw_shape[0]) < num_embeddings:
            check_product(raw_shape[0], num_embeddings, "num_embeddings")
        check_product(raw_shape[1], embedding_dim, "embedding_dim")
        super().__init__(raw_shape, tt_rank, device, dtype)
        self.num_embeddings, self.embedding_dim, self.init = num_embeddings, embedding_dim, init
        self.padding_idx = None if padding_idx is None else index_below(padding_idx, num_embeddings, "padding_idx")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values in place."""
        self._draw(self.init)

    def full(self) -> Tensor:
        """Return the table (num_embeddings, embedding_dim), without the rows that only pad the shape."""
        table = super().full()[: self.num_embeddings]
        return self._zero_padding(table, torch.arange(self.num_embeddings, device=table.device))

    def forward(self, indices: Tensor) -> Tensor:
        """Return rows, indices (...) -> (..., embedding_dim), in the dtype of the cores.

        Raises:
            TypeError: indices are not int32 or int64.
            IndexError: an index is outside the table (checked on the CPU only, to avoid synchronisation).
        """
        if not isinstance(indices, Tensor) or indices.dtype not in (torch.int32, torch.int64):
            given = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
            raise TypeError(f"indices must be an int32 or int64 tensor; got {given}: convert them first.")
        if indices.device.type == "cpu" and not torch.compiler.is_compiling():
            self._check_range(indices)
        return self._zero_padding(gather_rows(self.live_cores(), indices), indices)

    def _check_range(self, indices: Tensor) -> None:
        outside = indices[(indices < 0) | (indices >= self.num_embeddings)]
        if outside.numel():
            raise IndexError(
                f"Indices must lie between 0 and {self.num_embeddings - 1}; got {outside[0].item()}: "
                "check the vocabulary that they come from."
            )

    def _zero_padding(self, rows: Tensor, indices: Tensor) -> Tensor:
        if self.padding_idx is None:
            return rows
        return rows.masked_fill((indices == self.padding_idx)[..., None], 0.0)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, raw_shape={self.raw_shape}, ranks={self.ranks}"
