"""Contraction core by core, from either end: (T, M_done, r, n, N_left) x (r, m, n, s) -> (T, M_done m, s, N_left)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from .chains import Sizes, transpose
from .strategy import Gradients, Strategy, Wanted, add
from .work import Product, Work

CORE = "kmns"
"""The einsum indices of a core (r, m, n, s). einsum sums over indices in alphabetical order: this is that in memory, so
that it need not copy the core."""


@dataclass(frozen=True)
class Sequential(Strategy):
    """Core by core. In a state (b, a, ., ., z), a and z are the rows done and the columns left, or the reverse.

    In a ring b carries the outer rank too, and the trace closes it at the end.
    """

    reverse: bool = False

    @property
    def name(self) -> str:
        return "sequential_reversed" if self.reverse else "sequential"

    def add(
        self,
        x: Tensor,
        cores: Sequence[Tensor],
        onto: Tensor | None,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return x W^T + onto; with `between`, applied after every core but the last, the map is no matrix W."""
        *_, state = self._states(x, [core.to(x.dtype) for core in cores], between)
        return add(onto, _closed(state, x.shape[0], cores[0].shape[0], before=self.reverse))

    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, wanted: Wanted
    ) -> Gradients:
        if Wanted.CORES not in wanted:
            return self.add(g, transpose(cores), onto), None
        T, c = x.shape[0], cores[0].shape[0]
        lowered = [core.to(x.dtype) for core in cores]
        states = list(islice(self._states(x, lowered), len(cores)))  # the last one would be y
        before, after = self._indices
        flow = _opened(g, c, before=self.reverse)  # the gradient of the last state
        gradients: list[Tensor] = [*cores]
        for k, state in zip(reversed(self._order(cores)), reversed(states), strict=True):
            r, m, _, s = cores[k].shape
            flow = flow.reshape(T * c, state.shape[1], *((r, m) if self.reverse else (m, s)), state.shape[4])
            gradients[k] = torch.einsum(f"{before},{after}->{CORE}", state, flow).to(cores[k].dtype)
            if state is states[0] and Wanted.INPUT not in wanted:
                return None, gradients
            flow = torch.einsum(f"{after},{CORE}->{before}", flow, lowered[k])  # (b, a, ., ., z), as the state before
        return add(onto, _closed(flow, T, c, before=not self.reverse)), gradients

    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        return self._add_work(tokens, sizes, added, copied=self._copied_cores(sizes, transposed=False))

    def _add_work(self, tokens: int, sizes: Sizes, added: bool, copied: list[int]) -> Work:
        M, _ = sizes.shape
        work = Work(copies=(*copied, tokens * M) if added else (*copied,), launches=2)
        for rows, inner, columns in self._products(tokens, sizes):
            # a state is permuted before its product and after it
            work += Work((Product(rows, inner, columns),), copies=(rows * inner, rows * columns), launches=2)
        return work

    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, wanted: Wanted) -> Work:
        if Wanted.CORES not in wanted:
            copied = self._copied_cores(sizes.transposed, transposed=True)
            return self._add_work(tokens, sizes.transposed, added, copied)
        for_x = Wanted.INPUT in wanted
        copied = self._copied_cores(sizes, transposed=False)
        copies = (*copied[:-1], *(copied if for_x else copied[1:]))  # for the states, and for the gradients of them
        copies = (*copies, tokens * sizes.shape[1]) if for_x and added else copies
        work, products = Work(copies=copies, launches=2), self._products(tokens, sizes)
        for rows, inner, columns in products[:-1]:
            work += Work((Product(rows, inner, columns),), copies=(rows * inner, rows * columns), launches=2)
        for k, (rows, inner, columns) in enumerate(products):
            work += Work((Product(inner, rows, columns),), copies=(rows * inner, rows * columns), launches=2)
            if k > 0 or for_x:
                work += Work((Product(rows, columns, inner),), copies=(rows * inner, rows * columns), launches=2)
        return work

    @property
    def _indices(self) -> tuple[str, str]:
        """The einsum indices of a state before and after its product with a core: M rows done, N columns left."""
        return ("bNnsM", "bNkmM") if self.reverse else ("bMknN", "bMmsN")

    def _copied_cores(self, sizes: Sizes, transposed: bool) -> list[int]:
        """Return the entries of each core, in order, that einsum copies to contract it; 0 where a view serves.

        Its sides are (r, n) and (m, s) in one direction, and (n, s) and (r, m) in the other one, whose indices are
        adjacent in (r, m, n, s). In a transposed core, (r, n, m, s) in memory, it is the other way round.
        """
        copied = []
        for k, (m, n) in enumerate(zip(sizes.rows, sizes.columns, strict=True)):
            r, s = sizes.ranks[k : k + 2]
            is_view = self.reverse != transposed or m == 1 or n == 1 or r == s == 1
            copied.append(0 if is_view else r * m * n * s)
        return copied[:: -1 if self.reverse else 1]

    def _order(self, cores: Sequence[Tensor]) -> list[int]:
        return list(range(len(cores)))[:: -1 if self.reverse else 1]

    def _states(
        self, x: Tensor, cores: Sequence[Tensor], between: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """Yield the state before each core, (T c, M, r, n, N), or reversed (T c, N, n, s, M), and the last one."""
        T, c, left = x.shape[0], cores[0].shape[0], x.shape[1]
        before, after = self._indices
        state, done, order = _opened(x, c, before=not self.reverse), 1, self._order(cores)
        for k in order:
            r, m, n, s = cores[k].shape
            left //= n
            state = state.reshape((T * c, left, n, s, done) if self.reverse else (T * c, done, r, n, left))
            yield state
            state = torch.einsum(f"{before},{CORE}->{after}", state, cores[k])  # (T c, N, r, m, M) or (T c, M, m, s, N)
            done *= m
            if between is not None and k != order[-1]:
                state = between(state)
        yield state

    def _products(self, tokens: int, sizes: Sizes) -> list[tuple[int, int, int]]:
        """Return (rows, inner, columns) of the product with each core, in order."""
        products, vectors = [], tokens * sizes.ranks[0] * sizes.shape[1]
        d = len(sizes.rows)
        for k in range(d)[:: -1 if self.reverse else 1]:
            entered, left = sizes.ranks[k : k + 2][:: -1 if self.reverse else 1]
            vectors //= sizes.columns[k]
            products.append((vectors, entered * sizes.columns[k], left * sizes.rows[k]))
            vectors *= sizes.rows[k]
        return products


def _opened(x: Tensor, c: int, before: bool) -> Tensor:
    """(T, N) -> (T, c, c, N), with the outer rank before the entries of x, or (T, c, N, c), behind them."""
    if c == 1:
        return x[:, None, None] if before else x[:, None, :, None]
    closing = torch.eye(c, dtype=x.dtype, device=x.device)
    return torch.einsum("bN,cr->bcrN" if before else "bN,cr->bcNr", x, closing)


def _closed(state: Tensor, T: int, c: int, before: bool) -> Tensor:
    """Return the trace over the outer rank, (T, c, c, N) or (T, c, N, c) -> (T, N)."""
    N = math.prod(state.shape[1:]) // c
    if c == 1:
        return state.reshape(T, N)
    return torch.einsum("bccN->bN" if before else "bcNc->bN", state.reshape((T, c, c, N) if before else (T, c, N, c)))
