"""Labels as a person reads them. The server groups labels by the same rules; a test compares the two."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from graft._records.evaluation.reports import LabelCount, SimilarLabels

MAX_SIMILAR: Final = 50
"""The most groups of similar labels that are listed."""
_NAMED: Final = 5
_LONGEST: Final = 64
"""Characters of a label in a sentence."""
_SHOW_NOTHING = re.compile(
    # Format characters but the Arabic and Syriac marks that are seen, control characters, fillers, variation selectors
    # and the blank of Braille: Unicode's Default_Ignorable_Code_Point, and what fonts leave blank.
    "[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_FLAGS_TAGS = re.compile("(?<=\U0001f3f4)[\U000e0020-\U000e007f]+")
"""The tags behind a black flag: they tell England's from Scotland's."""
_JOINTS = re.compile(r"(?<=[^\W_])(?:[\s_]|[‐-―-](?!\d)|(?<=\d)[‐-―-])+(?=[^\W_])")
"""Spaces, underscores and hyphens between words. A hyphen between a letter and a digit may be a sign."""
_IDLE_JOINTS = re.compile(r"(?<!\d) | (?!\d)")
"""Joints that mean nothing: between two digits they make two numbers of one."""
_QUOTES = {ord(mark): "'" for mark in '‘’‚‛′`´"“”„‟″«»'}
_WHOLE_NUMBER = re.compile(r"([+-]?)0*(\d+)(?:\.0+)?")


def spelled(label: str) -> str:
    r"""The label in quotation marks, with the numbers of characters that show nothing: 'caf\u200be'."""
    quoted = repr(label)
    return _SHOW_NOTHING.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def reading(label: str) -> str:
    """What a person reads of a label: equal for labels that differ only in ways that are hard to see or to mean.

    These ways are case, compatibility forms such as full-width letters (NFKC), invisible characters, the kind and
    number of spaces, hyphens and underscores between words, quotation marks around it, the punctuation behind it, and
    of whole numbers the zeros that a conversion adds ("2.0", "02").
    """
    tags = _FLAGS_TAGS.search(label)
    text = unicodedata.normalize("NFKC", _SHOW_NOTHING.sub("", label)).casefold()
    text = unicodedata.normalize("NFKC", text.replace("i\u0307", "i")).translate(_QUOTES).strip()
    if number := _WHOLE_NUMBER.fullmatch(text):
        return number[1].removeprefix("+") + number[2]
    bare = text.strip("' ").rstrip(".,;:!?… ") or text
    return _IDLE_JOINTS.sub("", _JOINTS.sub(" ", bare)) + (tags[0] if tags else "")


def similar(examples: Mapping[str, int]) -> tuple[SimilarLabels, ...]:
    """The groups of labels that a person reads as one, those with the most examples first.

    Args:
        examples: For each label the number of examples that carry it.
    """
    groups: dict[str, list[LabelCount]] = {}
    for label, count in examples.items():
        groups.setdefault(reading(label), []).append(LabelCount(label, count))
    several = [
        sorted(group, key=lambda it: (-it.examples, it.label)) for group in groups.values() if len(group) > 1
    ]
    several.sort(key=lambda group: (-sum(it.examples for it in group), group[0].label))
    return tuple(SimilarLabels(tuple(group)) for group in several)


def new_labels(examples: Mapping[str, int], known: Collection[str], *, merged: bool = False) -> list[str]:
    """Says which labels a model does not have yet: a slip of the pen in a file makes a class of its own.

    Args:
        examples: For each label of a file the number of examples that carry it.
        known: The labels that the model has; none: it has no labels.
        merged: Whether labels that a person reads as one of the model's become that one.

    Returns:
        Sentences; those about labels that a person reads as one of the model's come first, as warnings.
    """
    new = {label: count for label, count in examples.items() if label not in known} if known else {}
    read = {reading(label): label for label in known}
    alike = {label: read[reading(label)] for label in new if reading(label) in read}
    others = [label for label in new if label not in alike]
    found = []
    if alike and not merged:
        pairs = [f"{spelled(it)} ({new[it]:,}) beside {spelled(has)}" for it, has in alike.items()]
        found.append(
            f"warning: {_listed(pairs)}: these differ from labels of the model only by case, spacing, punctuation or "
            "invisible characters, and become classes of their own"
        )
    if others:
        names = _listed(
            [f"{_cut(spelled(it))} ({new[it]:,})" for it in sorted(others, key=lambda it: (-new[it], it))]
        )
        found.append(
            f"the model does not have {'this label' if len(others) == 1 else 'these labels'} yet: {names}"
        )
    return found


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[:_LONGEST]}…"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def named(group: SimilarLabels) -> str:
    """A group in words: "'card' (20) and 'CARD' (10)"."""
    return " and ".join(f"{spelled(it.label)} ({it.examples:,})" for it in group.labels)


def asked(groups: tuple[SimilarLabels, ...]) -> str:
    """The question whether similar labels are meant as one, naming the first groups; "" if there are none."""
    if not groups:
        return ""
    more = f"; and {len(groups) - _NAMED:,} more groups" if len(groups) > _NAMED else ""
    listed = "; ".join(named(group) for group in groups[:_NAMED])
    return f"labels differ only by case, spacing, punctuation or invisible characters: {listed}{more}"
