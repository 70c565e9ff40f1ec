"""Reads an edited list of stored examples, and finds out what a person changed in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graft._data_files.cells import Cells
from graft._data_files.columns import Columns, RowError
from graft._data_files.corrections.writing import CONFIRMED, DELETE, VERSION, target
from graft._data_files.files import DataFile
from graft._data_files.targets import target_of
from graft._records.inputs.examples import Example, TextPair
from graft._records.inputs.list_cells import list_of
from graft._records.inputs.targets import distribution_of
from graft._records.stored_examples import StoredExample

_DIGITS: Final = 1e-9
"""Weights and values that differ less, relatively, are the same: a spreadsheet writes fewer digits."""


@dataclass(frozen=True, slots=True)
class ListRow:
    """A row of an edited list."""

    line: int
    """The line on which it begins."""
    id: str
    """The example's id; "" of a new one."""
    target: Mapping[str, Any]
    """The target's field; none if the row has no target."""
    text: str
    """Its text, or ""."""
    second: str
    """The second text of a pair, or ""."""
    confirmed: bool | None
    """Whether it says that the label is confirmed; None if there is no such column."""
    delete: bool
    """Whether it says that the example is to go."""
    version: int
    """The version that the list was written from; 0: unknown."""
    others: Mapping[str, Any]
    """Split, group, subject and weight, as far as it has them."""
    refusal: Callable[[str], RowError] = field(compare=False, repr=False)
    """Makes the error that says what is wrong with the row."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one stored example."""

    line: int
    """The line of the row that asks for it."""
    id: str
    """The example's id."""
    fields: Mapping[str, Any]
    """The fields of `Example` with their new values."""
    unconfirmed: bool = False
    """Whether the label is confirmed no more: the server would keep that where the same input comes again."""
    corrects: bool = False
    """Whether the target is another one."""
    confirms: bool = False
    """Whether the target is confirmed as it is."""


@dataclass(slots=True)
class Found:
    """What an edited list changes."""

    edits: list[Edit] = field(default_factory=list)
    """Changes of examples that are stored."""
    deleted: list[tuple[int, str]] = field(default_factory=list)
    """Line and id of the examples to remove."""
    added: list[tuple[int, Example]] = field(default_factory=list)
    """Line and example of what is new."""
    corrected: int = 0
    """Examples with another target."""
    confirmed: int = 0
    """Examples whose target is confirmed as it is."""
    edited: int = 0
    """Examples of which something else alone changed."""
    same: int = 0
    """Rows that say what is stored already."""
    texts: int = 0
    """Rows whose text differs from the stored one, which stays."""

    @property
    def counts(self) -> dict[str, int]:
        """How many examples are changed in which way."""
        counts = {"corrected": self.corrected, "confirmed": self.confirmed, "deleted": len(self.deleted)}
        return counts | {"added": len(self.added), "changed otherwise": self.edited}

    def add(self, edit: Edit) -> None:
        """Takes in a change."""
        self.edits.append(edit)
        self.corrected += edit.corrects
        self.confirmed += edit.confirms
        self.edited += not (edit.corrects or edit.confirms)

    def on_top_of(self, newest: Mapping[str, StoredExample]) -> None:
        """Leaves out what somebody has changed in the same way since the list was written.

        Args:
            newest: The changed examples as they are, by id; those that are not there are deleted already.
        """
        kept = []
        for edit in self.edits:
            stored = newest.get(edit.id)
            if stored is not None and all(
                getattr(stored, name) == value for name, value in edit.fields.items()
            ):
                self.same += 1
                self.corrected -= edit.corrects
                self.confirmed -= edit.confirms
                self.edited -= not (edit.corrects or edit.confirms)
            else:
                kept.append(edit)
        self.edits = kept
        self.same += sum(id_ not in newest for _, id_ in self.deleted)
        self.deleted = [(line, id_) for line, id_ in self.deleted if id_ in newest]

    @property
    def labels(self) -> Counter[str]:
        """The labels that examples get, with the number of examples that get each."""
        given = [edit.fields for edit in self.edits]
        given += [{"label": it.label, "labels": it.labels} for _, it in self.added]
        one = [it["label"] for it in given if isinstance(it.get("label"), str)]
        return Counter([*one, *(label for it in given for label in it.get("labels") or ())])

    def said(self) -> str:
        """What is changed, in words; "" if nothing is."""
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items() if count)


def list_rows(data: DataFile, task: str, on_bad: Callable[[RowError], None]) -> Iterator[ListRow]:
    """The rows of an edited list, without those that cannot be read.

    Args:
        data: The open file.
        task: The model's task, which tells what a label is.
        on_bad: Called for a row that cannot be read.
    """
    columns = Columns(
        input="text", label="label", value="value" if task == "regression" else None, task=task, lists=True,
        separator="," if task == "multi_label" else "",
    )  # fmt: skip
    if task == "single_label":
        columns = Columns(input="text", label="label", task=task)
    for row in data.rows():
        try:
            if isinstance(row, RowError):
                raise row
            yield _list_row(Cells(data.name, row), columns)
        except RowError as error:
            on_bad(error)


def _list_row(cells: Cells, columns: Columns) -> ListRow:
    def refusal(reason: str) -> RowError:
        return RowError(cells.name, cells.row.line, reason, unit=cells.row.unit)

    def optional(column: str) -> str:
        return cells.word(column) if cells.has(column) else ""

    def text(column: str) -> str:
        value = cells.given(column) if cells.has(column) else None
        return value if isinstance(value, str) else ""

    others: dict[str, Any] = {}
    if cells.has("split"):
        others["split"] = cells.one_of("split", ("", "train", "validation"))
    others |= {name: cells.word(name) for name in ("group", "subject") if cells.has(name)}
    if cells.has("weight") and (weight := cells.number("weight")) is not None:
        others["weight"] = weight
    version = optional(VERSION).removesuffix(".0")
    return ListRow(
        line=cells.row.line,
        id=optional("id"),
        target={} if not cells.has(columns.target) else target_of(cells, columns),
        text=text("text"),
        second=text("second"),
        confirmed=cells.flag(CONFIRMED) if cells.has(CONFIRMED) else None,
        delete=cells.has(DELETE) and cells.flag(DELETE),
        version=int(version) if version.isdecimal() else 0,
        others=others,
        refusal=refusal,
    )


def take(row: ListRow, stored: StoredExample | None, found: Found) -> None:
    """Finds out what a row changes.

    Args:
        row: The row.
        stored: The example as the list was written; None: it is not there.
        found: Where the change goes.

    Raises:
        RowError: The row cannot be used.
    """
    if not row.id:
        _add(row, found)
    elif stored is None:
        raise row.refusal(
            f"no example with the id {row.id!r:.80} is there: it was erased or deleted since. Leave the id empty to "
            "add the row as a new example"
        )
    elif row.delete:
        found.deleted.append((row.line, row.id))
    else:
        _change(row, stored, found)


def _add(row: ListRow, found: Found) -> None:
    if row.delete:
        raise row.refusal("it says delete, but has no id")
    if not row.text:
        raise row.refusal("it has neither the id of an example nor a text to add")
    value = TextPair(row.text, row.second) if row.second else row.text
    example = Example(value, confirmed=bool(row.confirmed), **{**row.target, **row.others})
    found.added.append((row.line, example))


def _change(row: ListRow, stored: StoredExample, found: Found) -> None:
    if not row.target and stored.target is not None:
        raise row.refusal("there is no label; write one, or yes under delete to remove the example")
    given = _shares(row.target) if stored.distribution is not None else row.target
    relabelled = not _same_target(given, stored)
    fields = {name: value for name, value in row.others.items() if not _same(value, getattr(stored, name))}
    # Whoever wrote another label looked at it.
    confirmed = relabelled or (stored.confirmed if row.confirmed is None else row.confirmed)
    found.texts += bool(row.text and stored.input is not None) and _plain(row.text) != _plain(_text(stored))
    if not relabelled and not fields and confirmed == stored.confirmed:
        found.same += 1
        return
    fields |= {**(given if relabelled else {}), "confirmed": confirmed}
    found.add(
        Edit(
            row.line,
            row.id,
            fields,
            unconfirmed=stored.confirmed and not confirmed,
            corrects=relabelled,
            confirms=confirmed and not stored.confirmed and not relabelled,
        )
    )


def _shares(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A target whose cell holds probabilities, as those; a label may look like them where no example has any."""
    found = list_of(given["label"]) if isinstance(given.get("label"), str) else None
    return {"distribution": distribution_of(found)} if isinstance(found, dict) else given


def _same_target(given: Mapping[str, Any], stored: StoredExample) -> bool:
    """Whether a row has the stored target."""
    (name, value), *_ = (*given.items(), ("label", None))
    if name == "labels":
        return stored.labels is not None and set(value) == set(stored.labels)
    if name == "distribution":
        shares = stored.distribution or {}
        return value.keys() == shares.keys() and all(_same(value[it], shares[it]) for it in value)
    known = target(stored).get("value" if name == "value" else "label")
    return _same(value, known)


def _same(given: object, known: object) -> bool:
    if isinstance(given, float | int) and isinstance(known, float | int):
        return abs(given - known) <= _DIGITS * max(abs(given), abs(known))
    return given == known


def _text(stored: StoredExample) -> str:
    match stored.input:
        case str():
            return stored.input
        case TextPair():
            return stored.input.first
        case _:
            return ""


def _plain(text: str) -> str:
    """A text without what a spreadsheet changes in it: line ends and space."""
    return " ".join(text.replace("\0", "\ufffd").split())
