"""Several labels in one cell of a line: written so that they can be read again."""

from __future__ import annotations

import json
from collections.abc import Sequence

SEPARATOR = ","
"""What stands between labels where no label has it."""


def cell_of(labels: Sequence[str]) -> str:
    """The labels joined by commas where that can be taken apart again; else, and of no labels, a list in JSON."""
    if labels and all(_is_plain(label) for label in labels):
        return SEPARATOR.join(labels)
    return json.dumps(list(labels), ensure_ascii=False)


def _is_plain(label: str) -> bool:
    bare = label == label.strip() and label.isprintable() and label[:1] not in ("[", "{", "(")
    return bare and bool(label) and SEPARATOR not in label and '"' not in label
