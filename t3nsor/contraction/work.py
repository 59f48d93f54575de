"""The work of a contraction (matrix products, entries copied, kernels launched) and the seconds it takes on a device.

    seconds = sum over products max(flops / speed(its sizes), bytes / bandwidth) + sum over copies bytes / copying
            + sum over results larger than 32 MiB bytes / paging + launches * seconds per launch
    speed   = peak * narrow / (narrow + half),    narrow = the smallest of the three sizes of a product

A product with a narrow side reaches only a part of the peak: half of it if that side has `half` entries. Allocations
larger than 32 MiB are requested from the system each time, page by page.
"""

from dataclasses import dataclass
from typing import NamedTuple

LARGE = 32 * 2**20
"""Bytes from which freed memory is returned to the system: the largest threshold of glibc."""


class Product(NamedTuple):
    """A matrix product (rows, inner) x (inner, columns); with `added` it is added to an existing result in place."""

    rows: int
    inner: int
    columns: int
    added: bool = False

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns

    @property
    def moved(self) -> int:
        """Entries read and written, each once."""
        result = self.rows * self.columns
        return self.rows * self.inner + self.inner * self.columns + result * (2 if self.added else 1)


@dataclass(frozen=True)
class Work:
    """Products, the entries of each copy (read once and written once), and the number of other kernels launched."""

    products: tuple[Product, ...] = ()
    copies: tuple[int, ...] = ()
    launches: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.copies + other.copies, self.launches + other.launches)

    @property
    def largest(self) -> int:
        """Entries of the largest result."""
        return max((*self.copies, *(p.rows * p.columns for p in self.products)), default=0)

    @property
    def flops(self) -> int:
        """Floating-point operations of the products; an addition and a multiplication are two."""
        return sum(product.flops for product in self.products)

    @property
    def moved(self) -> int:
        """Entries read and written."""
        return sum(product.moved for product in self.products) + 2 * sum(self.copies)


@dataclass(frozen=True)
class Device:
    """The coefficients of a device for one dtype, see the head of this file.

    Args:
        flops: peak of a large matrix product, floating-point operations per second.
        half: entries of the narrowest side at which a product reaches half of the peak.
        bandwidth: bytes per second that a matrix product with a narrow side reads and writes.
        copying: bytes per second of a permuting copy, read and write together.
        paging: bytes per second of the first access to a large new allocation.
        launch: seconds of the smallest kernel.
    """

    flops: float
    half: float
    bandwidth: float
    copying: float
    paging: float
    launch: float

    def seconds(self, work: Work, itemsize: int) -> float:
        """Return the estimate for entries of `itemsize` bytes."""
        total = (work.launches + len(work.products)) * self.launch + 2 * sum(work.copies) * itemsize / self.copying
        written = [*work.copies, *(p.rows * p.columns for p in work.products if not p.added)]
        total += sum(entries for entries in written if entries * itemsize > LARGE) * itemsize / self.paging
        for product in work.products:
            narrow = min(product[:3])
            if narrow > 0:
                speed = self.flops * narrow / (narrow + self.half)
                total += max(product.flops / speed, product.moved * itemsize / self.bandwidth)
        return total
