"""The source of a bundle's sample runner, `predict.py`: one file, which a user can read, run and copy from.

Runners share modules and import them like other code; in a bundle the modules' source replaces the imports.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from graft_server.exporting.runner import answers, classifier, inputs

_SHARED = (inputs, answers, classifier)
"""The modules that every runner shares, each after those that it imports."""
_OWN = "graft_server.exporting.runner."
_FUTURE = "from __future__ import annotations\n"
_IMPORT = re.compile(r"^(?:from (\S+) )?import ([^\n(]+)\n", re.MULTILINE)


def runner_source(runner: ModuleType) -> str:
    """Returns the runner as one file, with the shared modules in place of their imports."""
    sources = [Path(str(it.__file__)).read_text("utf-8").split(_FUTURE) for it in (*_SHARED, runner)]
    docstring = sources[-1][0]
    found = [_IMPORT.findall(body) for _, body in sources]
    bodies = [_IMPORT.sub("", body).strip() for _, body in sources]
    imports = _imports(it for one in found for it in one)
    return f"{docstring}{_FUTURE}\n{imports}\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _imports(found: Iterable[tuple[str, str]]) -> str:
    """Returns import lines, those of the standard library first: (module, names), or ("", module)."""
    names: dict[str, set[str]] = {}
    for module, what in found:
        if not module.startswith(_OWN):
            names.setdefault(module, set()).update(it.strip() for it in what.split(","))
    lines = [(it, f"import {it}") for it in sorted(names.pop("", ()))]
    lines += [(it, f"from {it} import {', '.join(sorted(names[it]))}") for it in sorted(names)]
    groups: dict[bool, list[str]] = {True: [], False: []}
    for module, line in lines:
        groups[re.split(r"\W", module)[0] in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(it) for it in groups.values())
