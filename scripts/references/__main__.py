"""`python -m scripts.references [--check]`: writes docs/reference, or says which pages are out of date."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

# Before any parser is built: help texts name the server that variables lead to, and depend on the terminal's width.
for _name in [name for name in os.environ if name.startswith("GRAFT_")]:
    del os.environ[_name]
os.environ["COLUMNS"] = "100"

from scripts.references import command_line, protos, python_api, reasons, settings  # noqa: E402

PAGES: Final = {
    "command-line.md": command_line.page,
    "settings.md": settings.page,
    "python.md": python_api.page,
    "protos.md": protos.page,
    "reasons.md": reasons.page,
}
FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"


def main() -> int:
    """Writes the pages, or compares them; the exit code is 1 where one is out of date."""
    check = "--check" in sys.argv[1:]
    stale = []
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale and check:
        print(f"out of date: {', '.join(stale)}; run 'make docs' and commit docs/reference", file=sys.stderr)
    elif stale:
        print(f"written: {', '.join(stale)}")
    return int(bool(stale and check))


if __name__ == "__main__":
    sys.exit(main())
