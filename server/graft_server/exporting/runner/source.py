"""The source of a bundle's sample runner, `predict.py`: one file, which a user can read, run and copy from.

Runners share the module `answers` and import it like other code; in a bundle its source replaces the import.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from graft_server.exporting.runner import answers

_SHARED = re.compile(r"\nfrom graft_server\.exporting\.runner\.answers import [^\n]+\n")
_IMPORT = re.compile(r"^(?:from|import) [^\n]+\n", re.MULTILINE)


def runner_source(runner: ModuleType) -> str:
    """Returns the runner as one file, with `answers` in place of its import."""
    source, inside = (Path(str(it.__file__)).read_text("utf-8") for it in (runner, answers))
    _, _, body = inside.partition("from __future__ import annotations\n")
    needed, body = _IMPORT.findall(body), _IMPORT.sub("", body).strip()
    top, own = _SHARED.split(source)  # once, on one line: otherwise this fails
    # A module that both import is imported once, by the line that names more.
    missing = [line for line in needed if line.rstrip() not in top]
    for line in missing:
        top = "".join(it for it in top.splitlines(keepends=True) if not line.startswith(it.rstrip() + ","))
    return f"{top.rstrip()}\n{''.join(missing)}\n\n{body}\n\n\n{own.lstrip()}"
