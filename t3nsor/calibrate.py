"""Measure the coefficients of the contraction cost model on this machine.

    python -m t3nsor.calibrate            measures the CPU, and the GPU if available, in a few seconds
    python -m t3nsor.calibrate --show     prints the coefficients in use

The coefficients and the file that stores them are documented in `t3nsor.contraction.device`.
"""

import argparse
import sys
from collections.abc import Callable

import torch

from .contraction.clock import shortest
from .contraction.device import coefficients, save
from .contraction.work import LARGE, Device

ROUNDS = 15
"""The number of timed runs of each product and copy."""


def calibrate(device_type: str, dtype: torch.dtype) -> Device:
    """Return the coefficients of a device, measured with a few products and copies."""
    options = {"device": device_type, "dtype": dtype}
    tokens, wide, narrow = 2048, 2048, 8
    x, weight = torch.randn(tokens, wide, **options), torch.randn(wide, wide, **options)
    thin, onto = torch.randn(wide, narrow, **options), torch.zeros(tokens, wide, **options)
    between, tiny = torch.randn(tokens, narrow, **options), torch.zeros(8, **options)
    itemsize = dtype.itemsize

    def seconds(run: Callable[[], object]) -> float:
        return shortest(run, torch.device(device_type), ROUNDS)

    large = 2 * LARGE // itemsize
    kept = torch.zeros(large, **options)
    fresh = seconds(lambda: torch.zeros(large, **options))
    paged = max(fresh - seconds(kept.zero_), 1e-9)

    flops = 2 * tokens * wide * wide / seconds(lambda: x @ weight)
    inner = seconds(lambda: x @ thin)
    half = max(narrow * (flops * inner / (2 * tokens * wide * narrow) - 1), 0.0)
    outer = seconds(lambda: onto.addmm_(between, thin.T))
    permuted = seconds(lambda: x.view(tokens, wide // 8, 8).transpose(1, 2).contiguous())
    return Device(
        flops=flops,
        half=half,
        bandwidth=2 * tokens * wide * itemsize / outer,
        copying=2 * tokens * wide * itemsize / permuted,
        paging=large * itemsize / paged,
        launch=seconds(lambda: tiny.add_(1)),
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure or show the coefficients; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m t3nsor.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--show", action="store_true", help="print the coefficients in use and measure nothing")
    options = parser.parse_args(arguments)
    types = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    keys = [(device_type, dtype) for device_type in types for dtype in (torch.float32, torch.bfloat16)]
    if options.show:
        in_use = {key: coefficients(*key) for key in keys}
    else:
        in_use = {key: calibrate(*key) for key in keys}
        print(f"saved to {save(in_use)}")
    print(
        f"{'device':<8}{'dtype':<16}{'GFLOP/s':>12}{'half':>8}{'GB/s':>8}{'copying':>10}{'paging':>9}{'launch us':>11}"
    )
    for (device_type, dtype), c in in_use.items():
        rates = f"{c.bandwidth / 1e9:>8.1f}{c.copying / 1e9:>10.1f}{c.paging / 1e9:>9.1f}"
        print(f"{device_type:<8}{dtype!s:<16}{c.flops / 1e9:>12,.0f}{c.half:>8.1f}{rates}{c.launch * 1e6:>11.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
