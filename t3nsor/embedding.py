"""A table of vectors as a tensor train, with rows looked up core by core; the table is never built.

    row i = G_1[:, i_1] G_2[:, i_2] ... G_d[:, i_d]     (i_1..i_d) are the digits of i in base (m_1..m_d), C order

    indices (...) -> rows (..., N);   chosen slice of a core (b, r, n, s);   (b, N_done, r) x (b, r, n, s) -> (b, N_done n, s)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .initializers import random_, standard_deviation
from .module import TTModule
from .shapes import check_product, check_raw_shape, factorize, positive_int, suggest_shape


class TTEmbedding(TTModule):
    """A stand-in for `nn.Embedding` whose table (num_embeddings, embedding_dim) is a tensor train.

    Args:
        num_embeddings, embedding_dim: the size of the table.
        d: the number of cores; read only where raw_shape is None.
        tt_rank: an int, clipped at each bond to what the bond can use, or a list of d - 1 ranks.
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)); None factorises both sides. The m's may multiply to more than
            num_embeddings: the rows beyond are never looked up.
        pad_rows: without raw_shape, factor the rows by `suggest_shape`, which pads their number up to one that splits evenly.
        padding_idx: this row is zero and gets no gradient, in the forward and in `full()`; negative counts from the end.
        init: a standard deviation for the entries of the table (1.0 as in `nn.Embedding`), or "glorot", "he", "lecun".
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
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"padding_idx must be a row of the table of {num_embeddings}, but {padding_idx} was given; choose one within it."
            )
        super().__init__(raw_shape, tt_rank, device, dtype)
        self.num_embeddings, self.embedding_dim, self.init = num_embeddings, embedding_dim, init
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start values anew, in place."""
        random_(self.cores, standard_deviation(self.init, self.num_embeddings, self.embedding_dim))

    def full(self) -> Tensor:
        """The table (num_embeddings, embedding_dim), without the rows that only pad the shape."""
        table = self.tensor_train().full()[: self.num_embeddings]
        return table if self.padding_idx is None else self._mask_padding(table, torch.arange(self.num_embeddings, device=table.device))

    def forward(self, indices: Tensor) -> Tensor:
        """Integer indices (...) -> (..., embedding_dim) in the dtype of the cores; IndexError for one outside the table."""
        if indices.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"indices must be int32 or int64, but their dtype is {indices.dtype}; convert them first.")
        if not torch.compiler.is_compiling() and indices.device.type == "cpu":
            outside = indices[(indices < 0) | (indices >= self.num_embeddings)]
            if outside.numel():
                raise IndexError(
                    f"Indices must lie in 0 to {self.num_embeddings - 1}, but {outside[0].item()} was given; mend the indices."
                )
        flat = indices.reshape(-1)
        rows = self.cores[0].new_ones(flat.shape[0], 1, 1)
        stride = math.prod(self.raw_shape[0])
        for core, m in zip(self.cores, self.raw_shape[0], strict=True):
            stride //= m
            chosen = core[:, flat // stride % m].movedim(1, 0)  # (r, b, n, s) -> (b, r, n, s)
            rows = torch.einsum("bNr,brns->bNns", rows, chosen).flatten(1, 2)  # (b, N, r) x (b, r, n, s) -> (b, N n, s)
        rows = rows.reshape(*indices.shape, self.embedding_dim)
        return rows if self.padding_idx is None else self._mask_padding(rows, indices)

    def _mask_padding(self, rows: Tensor, indices: Tensor) -> Tensor:
        return rows.masked_fill((indices == self.padding_idx)[..., None], 0.0)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, raw_shape={self.raw_shape}, ranks={self.ranks}"
