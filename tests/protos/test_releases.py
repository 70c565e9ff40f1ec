"""The contract of a release is kept in the tree, and what breaks it is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RELEASED = sorted((ROOT / "protos/released").glob("v*.binpb"))


def copied(tree: Path) -> Path:
    """A copy of the contract, without releases, and of what keeps and compares it."""
    shutil.copytree(ROOT / "protos", tree / "protos", ignore=shutil.ignore_patterns("released"))
    shutil.copy(ROOT / "buf.yaml", tree)
    (tree / "scripts").mkdir()
    for name in ("proto-breaking.sh", "release-protos.sh"):
        shutil.copy(ROOT / "scripts" / name, tree / "scripts")
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n")
    return tree


@pytest.fixture(scope="module")
def two_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a copy of which there are releases 0.9.0 and 0.10.0."""
    tree = copied(tmp_path_factory.mktemp("released"))
    for version in ("0.9.0", "0.10.0"):
        assert run(tree, "release-protos.sh", version).returncode == 0
    return tree


@pytest.fixture
def released(two_releases: Path, tmp_path: Path) -> Path:
    """A copy of its own of the two releases."""
    return Path(shutil.copytree(two_releases, tmp_path, dirs_exist_ok=True))


def run(tree: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VENV": str(Path(sys.executable).parents[1])}
    return subprocess.run(
        ["bash", f"scripts/{script}", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def edit(tree: Path, old: str, new: str) -> None:
    path = tree / "protos/graft/v1/model.proto"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


FIELD = "  // The name.\n  string name = 1;\n"


def test_nothing_is_compared_before_the_first_release(tmp_path: Path):
    tree = copied(tmp_path)
    done = run(tree, "proto-breaking.sh")
    assert done.returncode == 0
    assert "nothing to compare with" in done.stdout


def test_a_release_keeps_the_contract_and_heads_the_changelog(two_releases: Path):
    assert (two_releases / "protos/released/v0.9.0.binpb").stat().st_size > 10_000
    lines = (two_releases / "CHANGELOG.md").read_text().splitlines()
    assert lines[2] == "## [Unreleased]"
    assert lines[4].startswith("## [0.10.0] - 20")
    assert lines[6].startswith("## [0.9.0] - 20")
    assert lines[8:] == ["### Added", "", "- A thing."]


def test_what_is_added_breaks_nothing(released: Path):
    edit(released, FIELD, FIELD + "  // What it is for.\n  string purpose = 999;\n")
    done = run(released, "proto-breaking.sh")
    said = "comparing the contract with protos/released/v0.10.0.binpb\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_what_breaks_the_last_release_is_found(released: Path):
    edit(released, FIELD, "")
    edit(released, "  string prefix = 1;", "  string beginning = 1;")
    edit(released, "  string detail = 2;", "  string detail = 1000;")
    edit(released, "  int32 versions = 4;", "  string versions = 4;")
    edit(released, "rpc SetAlias(", "rpc MoveAlias(")
    edit(released, 'option go_package = "graft/v1;graftv1";', 'option go_package = "other/v1;otherv1";')
    broken = run(released, "proto-breaking.sh")
    assert broken.returncode != 0
    for found in (
        'Previously present field "1" with name "name" on message "Model" was deleted',
        'name from "prefix" to "beginning"',
        'Previously present field "2" with name "detail" on message "ModelRenewal" was deleted',
        'type from "int32" to "string"',
        'Previously present RPC "SetAlias" on service "ModelService" was deleted',
        'option "go_package" changed from "graft/v1;graftv1" to "other/v1;otherv1"',
    ):
        assert found in broken.stdout + broken.stderr


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("", "which version?"),
        ("v0.3.0", "three numbers"),
        ("0.10.0", "is there already"),
        ("0.9.9", "is not newer"),
    ],
)
def test_a_release_that_cannot_be_is_refused(two_releases: Path, version: str, said: str):
    before = (two_releases / "CHANGELOG.md").read_text()
    done = run(two_releases, "release-protos.sh", version)
    assert done.returncode == 1
    assert said in done.stderr
    assert (two_releases / "CHANGELOG.md").read_text() == before


def test_each_kept_release_has_its_section_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for kept in RELEASED:
        assert f"\n## [{kept.stem.removeprefix('v')}] - " in changelog
