"""The resident memory of this process."""

import os
import resource
import sys
from pathlib import Path


def resident_mib() -> float:
    """MiB that are in memory now; where the system does not say, the most that ever were."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return round(int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
