"""How many cores a server takes in a container whose limit is a quota of time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graft_server.sharing.cores import usable_cores

ALL = len(os.sched_getaffinity(0))


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "cpu" / "a").mkdir(parents=True)
    return tmp_path


def cores(groups: Path, own: str) -> int:
    file = groups / "own"
    file.write_text(own + "\n")
    return usable_cores(groups, file)


@pytest.mark.parametrize(
    ("limit", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", ALL)]
)
def test_the_quota_of_the_own_group_counts(groups: Path, limit: str, expected: int) -> None:
    (groups / "a" / "b" / "cpu.max").write_text(limit + "\n")
    assert cores(groups, "0::/a/b") == expected


def test_the_quota_of_a_group_further_up_counts_too(groups: Path) -> None:
    (groups / "a" / "b" / "cpu.max").write_text("max 100000\n")
    (groups / "a" / "cpu.max").write_text("100000 100000\n")
    assert cores(groups, "0::/a/b") == 1


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", ALL)])
def test_the_first_version_of_control_groups_is_read_as_well(groups: Path, quota: str, expected: int) -> None:
    (groups / "cpu" / "a" / "cpu.cfs_quota_us").write_text(quota)
    (groups / "cpu" / "a" / "cpu.cfs_period_us").write_text("100000")
    assert cores(groups, "4:cpu,cpuacct:/a\n3:memory:/a") == expected


def test_without_control_groups_all_cores_that_may_be_run_on_are_used(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == ALL
