"""How much work a contraction is: matrix products, numbers copied, kernels launched; and what that costs on a device.

    seconds = sum over products max(flops / speed(its sizes), bytes / bandwidth) + sum over copies bytes / copying
            + sum over results of over 32 MiB bytes / paging + launches * seconds of a launch
    speed   = peak * narrow / (narrow + half),    narrow = the smallest of the three sizes of a product

A product with a narrow side reaches the peak only in part: half of it where the side has `half` entries. What is larger
than 32 MiB the C library takes from the system anew each time, page by page.
"""

from dataclasses import dataclass
from typing import NamedTuple

LARGE = 32 * 2**20
"""Bytes from which memory is not kept for the next use, which is glibc's largest threshold."""


class Product(NamedTuple):
    """A matrix product (rows, inner) x (inner, columns); with `added` it is summed onto what is there."""

    rows: int
    inner: int
    columns: int
    added: bool = False

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns

    @property
    def moved(self) -> int:
        """Numbers read and written, each once."""
        result = self.rows * self.columns
        return self.rows * self.inner + self.inner * self.columns + result * (2 if self.added else 1)


@dataclass(frozen=True)
class Work:
    """Products, copies of so many numbers (each read once and written once), and other kernels launched."""

    products: tuple[Product, ...] = ()
    copies: tuple[int, ...] = ()
    launches: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.copies + other.copies, self.launches + other.launches)

    @property
    def largest(self) -> int:
        """Numbers of the largest thing that is written."""
        return max((*self.copies, *(p.rows * p.columns for p in self.products)), default=0)

    @property
    def flops(self) -> int:
        """Floating-point operations of the products; an addition and a multiplication are two."""
        return sum(product.flops for product in self.products)

    @property
    def moved(self) -> int:
        """Numbers read and written."""
        return sum(product.moved for product in self.products) + 2 * sum(self.copies)


@dataclass(frozen=True)
class Device:
    """The few coefficients of a device for one dtype; see the head of this file.

    Args:
        flops: peak of a large matrix product, floating-point operations per second.
        half: the size of the narrowest side at which a product reaches half of the peak.
        bandwidth: bytes per second that a matrix product with a narrow side reads and writes.
        copying: bytes per second of a permuting copy, read and write together.
        paging: bytes per second at which large fresh memory is touched first.
        launch: seconds that a kernel takes however small it is.
    """

    flops: float
    half: float
    bandwidth: float
    copying: float
    paging: float
    launch: float

    def seconds(self, work: Work, itemsize: int) -> float:
        """The estimate for numbers of `itemsize` bytes."""
        total = (work.launches + len(work.products)) * self.launch + 2 * sum(work.copies) * itemsize / self.copying
        written = [*work.copies, *(p.rows * p.columns for p in work.products if not p.added)]
        total += sum(numbers for numbers in written if numbers * itemsize > LARGE) * itemsize / self.paging
        for product in work.products:
            narrow = min(product[:3])
            if narrow > 0:
                speed = self.flops * narrow / (narrow + self.half)
                total += max(product.flops / speed, product.moved * itemsize / self.bandwidth)
        return total
