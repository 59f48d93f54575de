"""The resident memory of this process."""

import os
import resource
import sys
from pathlib import Path


def resident_mib() -> float:
    """MiB that are in memory now."""
    return round(resident_bytes() / 2**20, 1)


def resident_bytes() -> int:
    """Bytes that are in memory now; where the system does not say, the most that ever were."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 2**10
