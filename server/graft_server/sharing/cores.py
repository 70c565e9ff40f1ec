"""The number of processor cores that this process may use: its affinity and its container's limit.

A container's limit is a quota of time, which the affinity does not show: 64 threads on a quota of 2 cores all stand
still for most of each period.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Returns the number of usable cores, at least 1.

    Args:
        groups: Where the system shows its control groups.
        own: The file that says which of them this process is in.
    """
    quota = min(_quotas(groups, own), default=math.inf)
    # A thread for a part of a core would keep the others waiting.
    return max(1, int(min(quota, len(os.sched_getaffinity(0)))))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Returns the limits of the process's group and of the groups that contain it, in cores."""
    for folder in _folders(groups, own):
        yield from _unified(folder / "cpu.max")
        yield from _first_version(folder)


def _folders(groups: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / "cpu" if controllers else groups
        folder = root / path.lstrip("/")
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent
        yield root


def _unified(file: Path) -> Iterator[float]:
    """Reads the second version of control groups: a line "QUOTA PERIOD", in microseconds, or "max PERIOD"."""
    try:
        quota, period = file.read_text().split()
        yield int(quota) / int(period)
    except (OSError, ValueError):
        return


def _first_version(folder: Path) -> Iterator[float]:
    """Reads the first version of control groups: two files; a quota of -1 means no limit."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return
    if quota > 0:
        yield quota / period
