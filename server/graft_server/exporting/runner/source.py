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
_RUNTIME = "graft_server.onnx_runtime"
_BEFORE = """# Before it is imported: from release 1.29 on it would tell its maker what it runs.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
"""
_AFTER = "onnxruntime.disable_telemetry_events()\n"
"""What `graft_server` does about onnxruntime where the server imports it, in a bundle."""
_IMPORT = re.compile(r"^(?:from (\S+) )?import ([^\n(]+)\n", re.MULTILINE)


def runner_source(runner: ModuleType) -> str:
    """Returns the runner as one file, with the shared modules in place of their imports."""
    sources = [Path(str(it.__file__)).read_text("utf-8").split(_FUTURE) for it in (*_SHARED, runner)]
    docstring = sources[-1][0]
    found = [_IMPORT.findall(body) for _, body in sources]
    bodies = [_IMPORT.sub("", body).strip() for _, body in sources]
    own, others = _imports(it for one in found for it in one)
    imports = f"{own}\n\n{_BEFORE}\n{others}\n\n{_AFTER}"
    return f"{docstring}{_FUTURE}\n{imports}\n\n" + "\n\n\n".join(bodies) + "\n"


def _imports(found: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Returns import lines, those of the standard library apart: of (module, names), or ("", module)."""
    names: dict[str, set[str]] = {"": {"os"}}
    for module, what in found:
        if not module.startswith(_OWN):
            # A user has onnxruntime itself.
            place = "" if module == _RUNTIME else module
            names.setdefault(place, set()).update(it.strip() for it in what.split(","))
    lines = [(it, f"import {it}") for it in sorted(names.pop("", ()))]
    lines += [(it, f"from {it} import {', '.join(sorted(names[it]))}") for it in sorted(names)]
    groups: dict[bool, list[str]] = {True: [], False: []}
    for module, line in lines:
        groups[re.split(r"\W", module)[0] in sys.stdlib_module_names].append(line)
    return "\n".join(groups[True]), "\n".join(groups[False])
