"""Nothing phones home: what libraries would tell their makers is switched off before they are imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graft_server import environment

ROOT = Path(__file__).parents[1]
SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (it.name for it in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_only_one_module_imports_onnxruntime_and_parts_of_it_are_imported_beside_that_module():
    files = [
        *(ROOT / "server").rglob("*.py"),
        *(ROOT / "client").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    importing = {file.name for file in files if "onnxruntime" in imported(file)}
    assert importing == {"onnx_runtime.py"}
    for file in files:
        modules = list(imported(file))
        if any(it.startswith("onnxruntime.") for it in modules):
            assert "graft_server.onnx_runtime" in modules, file


@pytest.mark.parametrize(
    "module", ["graft_server.cli", "graft_server.jobs.local.worker", "graft_server.onnx_runtime"]
)
def test_every_process_has_it_switched_off_before_a_library_is_imported(module: str):
    code = f"""
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "huggingface_hub", "transformers", "torch", "numpy"):
            import os
            for variable, value in {SILENT!r}.items():
                assert os.environ.get(variable) == value, (name, variable)
            assert os.environ["HF_HUB_OFFLINE"] == "ON" and os.environ["OPENBLAS_NUM_THREADS"] == "1", name
sys.meta_path.insert(0, Watch())
import {module}, os
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    contrary = {"ORT_DISABLE_TELEMETRY": "0", "HF_HUB_DISABLE_TELEMETRY": "0"}
    bare = {name: value for name, value in os.environ.items() if name not in (*SILENT, "HF_HUB_OFFLINE")}
    subprocess.run([sys.executable, "-c", code], check=True, env={**bare, **contrary}, timeout=60)


def test_the_hub_may_be_asked_where_an_operator_names_a_hub_id_unless_he_forbade_it(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    environment.prepare()
    assert os.environ["HF_HUB_OFFLINE"] == "ON"
    assert environment.with_hub()["HF_HUB_OFFLINE"] == "0"
    assert environment.with_hub()["HF_HUB_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment.prepare()
    assert environment.with_hub()["HF_HUB_OFFLINE"] == "1"
