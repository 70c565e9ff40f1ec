"""What was measured, one JSON line a draw, and which recipe measured it."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

PATH = RESULTS / "fewshot.jsonl"
_SERVER = Path(__file__).resolve().parents[2] / "server" / "graft_server"
_RECIPE = (
    "adapting/publishing/fine_tuning.py",
    "backbones/cross_fitted.py",
    "backbones/torch/tuning/contrastive.py",
    "backbones/torch/tuning/cross_fitting.py",
    "backbones/torch/tuning/run.py",
    "training/tasks/single_label/cross_fitting.py",
    "training/tasks/single_label/few.py",
    "training/tasks/single_label/noise.py",
    "training/tasks/single_label/tuning.py",
)
"""Where it is decided what is tuned on few examples, how, and whether it is kept."""

Line = dict[str, Any]


@cache
def recipe() -> str:
    """A fingerprint of the code that decides, without comments and docstrings: figures of another are kept apart."""
    digest = hashlib.sha256()
    for name in _RECIPE:
        path = _SERVER / name
        if path.exists():
            digest.update(ast.dump(_bare(ast.parse(path.read_text(encoding="utf-8")))).encode())
    return digest.hexdigest()[:12]


@cache
def commit() -> str:
    """The last commit that changed the code that decides, with a "+" where it was changed since."""

    def git(*words: str) -> str:
        command = ["git", *words, "--", *_RECIPE]
        return subprocess.run(command, cwd=_SERVER, capture_output=True, text=True, check=True).stdout.strip()

    return git("log", "-1", "--format=%h") + ("+" if git("status", "--porcelain") else "")


def read(path: Path = PATH) -> list[Line]:
    """All lines, of every recipe, oldest first."""
    return [json.loads(it) for it in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def current(lines: Iterable[Line]) -> list[Line]:
    """Those that the code as it is measured."""
    return [it for it in lines if it["recipe"] == recipe()]


def newest(lines: Sequence[Line]) -> list[Line]:
    """Those of the recipe that the last line was measured with."""
    return [it for it in lines if it["recipe"] == lines[-1]["recipe"]]


def keep(line: Line, path: Path = PATH) -> None:
    """Adds a line."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _bare(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [
                it for it in body if not (isinstance(it, ast.Expr) and isinstance(it.value, ast.Constant))
            ]
            node.body = kept  # type: ignore[attr-defined]
    return tree
