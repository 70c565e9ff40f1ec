"""Exported files: all of them right, or none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import graft
from graft._client.bundle import BundleWriter
from graft.v1 import model_pb2


def pieces(path: str, content: bytes, **wrong: object) -> list[model_pb2.ExportModelResponse]:
    said = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), **wrong}
    middle = len(content) // 2
    return [
        model_pb2.ExportModelResponse(path=path, chunk=chunk, **said)  # type: ignore[arg-type]
        for chunk in (content[:middle], content[middle:])
    ]


def written(directory: Path, *files: list[model_pb2.ExportModelResponse]) -> graft.Bundle:
    with BundleWriter(directory) as writer:
        for file in files:
            for piece in file:
                writer.write(piece)
        return writer.finish()


def test_files_arrive_whole_also_in_folders_and_empty(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    bundle = written(
        target, pieces("model.onnx", b"graph"), pieces("sub/labels.json", b"[]"), pieces("empty", b"")
    )
    assert bundle.onnx.read_bytes() == b"graph"
    assert (target / "sub/labels.json").read_bytes() == b"[]"
    assert (target / "empty").read_bytes() == b""
    assert bundle.size == 7
    assert sorted(path.name for path in target.iterdir()) == ["empty", "model.onnx", "sub"]


def test_an_older_bundle_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, pieces("model.onnx", b"old"))
    written(tmp_path, pieces("model.onnx", b"new"))
    assert (tmp_path / "model.onnx").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("wrong", "says"), [({"size": 9}, "has 5 bytes instead of 9"), ({"sha256": "0" * 64}, "has SHA-256")]
)
def test_a_wrong_file_leaves_everything_as_it_was(
    tmp_path: Path, wrong: dict[str, object], says: str
) -> None:
    written(tmp_path, pieces("labels.json", b"old"))
    with pytest.raises(graft.DataLossError, match=says):
        written(tmp_path, pieces("labels.json", b"new"), pieces("model.onnx", b"graph", **wrong))
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]
    assert (tmp_path / "labels.json").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out", "", "a\\out", "c:out", "a\0out"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(graft.DataLossError, match="not a path within the bundle"):
        written(target, pieces(path, b"content"))
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_does_not_lead_out(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    (target / "sub").symlink_to(elsewhere)
    with pytest.raises(graft.DataLossError, match="symbolic link"):
        written(target, pieces("sub/model.onnx", b"graph"))
    assert list(elsewhere.iterdir()) == []


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(graft.DataLossError, match="no files"):
        written(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_file_sent_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(graft.DataLossError, match="sent twice"):
        written(tmp_path, pieces("a", b"x"), pieces("b", b"y"), pieces("a", b"x"))
