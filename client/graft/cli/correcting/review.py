"""The dialogue of `graft review`: each example with its label and the suggested one, and a key for each answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from graft._data_files.corrections.reading import Edit, Found
from graft._records.inputs.list_cells import list_of
from graft._report import words
from graft._report.charts import cut
from graft.cli.correcting.items import Item, Target, in_words
from graft.cli.correcting.keys import CTRL_C, ESCAPE, Keys, matching

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_ROOM: Final = 2_000
"""Characters of a text that is shown."""
_LISTED: Final = 20
"""Changes that are listed one by one at the end."""


class Kind(StrEnum):
    """What is to become of an example."""

    KEEP = "keep"
    CORRECT = "correct"
    DELETE = "delete"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided of an example."""

    kind: Kind
    target: Target = ""
    """The new target, where it is corrected."""

    def said(self, item: Item) -> str:
        """The decision in words."""
        if self.kind is Kind.CORRECT:
            return f"{in_words(item.target)} → {in_words(self.target)}"
        done = {Kind.KEEP: "is confirmed", Kind.DELETE: "is deleted", Kind.SKIP: "is skipped"}
        return f"{in_words(item.target)} {done[self.kind]}"


_KINDS: Final = {
    "k": Kind.KEEP,
    "keep": Kind.KEEP,
    "c": Kind.CORRECT,
    "correct": Kind.CORRECT,
    "d": Kind.DELETE,
    "delete": Kind.DELETE,
    "s": Kind.SKIP,
    "skip": Kind.SKIP,
}


def _places(at: int, end: int) -> dict[str, int]:
    """Where answers lead that decide nothing."""
    back = max(0, at - 1)
    return {"b": back, "back": back, "q": end, "quit": end}


class Ending(StrEnum):
    """How a review ended."""

    SEND = "send"
    """With a yes to sending the decisions."""
    SAVE = "save"
    """The decisions are to be saved: nobody said yes, or they are to be sent later."""
    DROP = "drop"
    """They are thrown away, or there are none."""


class Review:
    """Goes through examples, and keeps what a person decides of them.

    Attributes:
        decisions: By the item's place.
        cut_off: Whether the input ended before it was said what becomes of them.
    """

    def __init__(
        self,
        terminal: Terminal,
        keys: Keys,
        items: Sequence[Item],
        classes: Sequence[str],
        shown: Callable[[Item], str],
    ) -> None:
        """Asks nothing yet.

        Args:
            terminal: Where questions go.
            keys: Where answers come from.
            items: What to go through.
            classes: The labels that the version knows.
            shown: Reads an item's input, and returns what to show of it.
        """
        self.decisions: dict[int, Decision] = {}
        self.cut_off = False
        self._terminal = terminal
        self._keys = keys
        self._items = items
        self._classes = list(classes)
        self._shown = shown

    def run(self, question: str) -> Ending:
        """Asks about each item, then `question`, which is to be answered by yes before anything is sent."""
        at = 0
        while True:
            while at < len(self._items):
                moved = self._ask(at)
                if isinstance(moved, Ending):
                    return moved
                at = moved
            if not self._changed():
                self._terminal.say("nothing is changed: nothing was kept, corrected or deleted")
                return Ending.DROP
            self._summary()
            ending = self._finish(question)
            if ending is not None:
                return ending
            at = max(0, len(self._items) - 1)

    def found(self) -> Found:
        """The decisions as changes; an item's place, from 1, stands for a line."""
        found = Found()
        for at, decision in sorted(self.decisions.items()):
            item = self._items[at]
            fields: dict[str, Any] = {"confirmed": True}
            if decision.kind is Kind.DELETE:
                found.deleted.append((at + 1, item.example.id))
                continue
            if decision.kind is Kind.SKIP:
                continue
            if decision.kind is Kind.CORRECT:
                names = {str: "label", tuple: "labels", float: "value"}
                fields[names[type(decision.target)]] = decision.target
            kept = decision.kind is Kind.KEEP
            found.add(Edit(at + 1, item.example.id, fields, corrects=not kept, confirms=kept))
        return found

    def _ask(self, at: int) -> int | Ending:
        """Asks about an item, and returns the place of the next one, or how the review ended."""
        item = self._items[at]
        self._show(at, item)
        correct = "[c]orrect, " if item.suggested is not None else ""
        while True:
            answer = self._keys.command(f"[k]eep, {correct}[l]abel…, [d]elete, [s]kip, [b]ack, [q]uit?")
            if answer is None:
                return self._ended()
            if answer in (CTRL_C, ESCAPE):
                if (ending := self._leave()) is not None:
                    return ending
            elif (place := _places(at, len(self._items)).get(answer.lower())) is not None:
                return place
            elif (decision := self._decision(item, answer)) is not None:
                self.decisions[at] = decision
                return at + 1

    def _decision(self, item: Item, answer: str) -> Decision | None:
        """The decision that an answer means; None: it means none."""
        command, _, rest = answer.partition(" ")
        kind = _KINDS.get(answer.lower())
        if kind is Kind.CORRECT and item.suggested is not None:
            return Decision(kind, item.suggested)
        if kind is not None and kind is not Kind.CORRECT:
            return Decision(kind)
        if command.lower() not in ("l", "label") and answer not in self._classes:
            return None
        target = self._target(item, rest if command.lower() in ("l", "label") else answer)
        if target is None:
            return None
        return Decision(Kind.KEEP) if target == item.target else Decision(Kind.CORRECT, target)

    def _target(self, item: Item, typed: str) -> Target | None:
        """The label, the labels or the number that a person writes; None if none after all."""
        questions = {tuple: "labels, with commas between them:", float: "number:"}
        question = questions.get(type(item.target), "label (Tab completes):")
        text = typed.strip() or self._keys.text(question, self._classes)
        if not text:
            return None
        if isinstance(item.target, float):
            return self._number(text)
        if isinstance(item.target, str):
            return self._label(text)
        listed = list_of(text)
        names = [str(it) for it in listed] if isinstance(listed, list) else text.split(",")
        labels = [self._label(it.strip()) for it in names if it.strip()]
        return None if None in labels else tuple(dict.fromkeys(it for it in labels if it is not None))

    def _number(self, text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        self._terminal.say(f"{text!r} is not a number")
        return None

    def _label(self, text: str) -> str | None:
        """The label that is meant: one that is known, by its beginning or a part of it, or a new one."""
        if text in self._classes:
            return text
        fitting = matching(text, self._classes)
        exact = [it for it in fitting if it.casefold() == text.casefold()]
        if len(exact) == 1 or len(fitting) == 1:
            return (exact or fitting)[0]
        if fitting:
            self._terminal.say(f"several labels are like {text!r}: {', '.join(fitting[:_LISTED])}")
            return None
        answer = self._keys.command(f"{text!r} is a new label. Take it? [y]es, [n]o")
        if answer is None or answer.lower() not in ("y", "yes"):
            return None
        self._classes.append(text)
        return text

    def _show(self, at: int, item: Item) -> None:
        write = self._terminal.err.print
        origin = item.example.origin or item.example.id
        write(f"\n[dim]{at + 1} of {len(self._items)} · {escape(origin)}[/]")
        write(escape(cut(words.printable(self._shown(item)), _ROOM)))
        known = "" if item.probability is None else f"  {words.percent(item.probability)}"
        write(f"  label      [yellow]{escape(in_words(item.target))}[/][dim]{known}[/]")
        if item.suggested is not None:
            sure = (
                "" if item.suggested_probability is None else f"  {words.percent(item.suggested_probability)}"
            )
            write(f"  suggested  [green]{escape(in_words(item.suggested))}[/][dim]{sure}[/]")
        if item.note:
            write(f"  [dim]{escape(item.note)}[/]")
        if at in self.decisions:
            write(f"  [cyan]decided    {escape(self.decisions[at].said(item))}[/]")

    def _changed(self) -> int:
        """How many decisions change something."""
        return sum(it.kind is not Kind.SKIP for it in self.decisions.values())

    def _leave(self) -> Ending | None:
        """Asks what becomes of the decisions; None: go on."""
        count = self._changed()
        if not count:
            return Ending.DROP
        answer = self._keys.command(
            f"{words.plural(count, 'decision')} so far: [a]dapt with them, [s]ave them to a file, [t]hrow them away, "
            "or [g]o on?"
        )
        match answer:
            case "a":
                return Ending.SEND
            case "t":
                return Ending.DROP
            case None | "s" | "ctrl-c":
                return Ending.SAVE
            case _:
                return None

    def _ended(self) -> Ending:
        """The input has ended without a word of what becomes of the decisions."""
        self.cut_off = True
        return Ending.SAVE if self._changed() else Ending.DROP

    def _summary(self) -> None:
        found = self.found()
        self._terminal.say(f"\nchanges: {found.said()}")
        listed = [
            (self._items[at], it) for at, it in sorted(self.decisions.items()) if it.kind is not Kind.SKIP
        ]
        for item, decision in listed[:_LISTED]:
            self._terminal.say(f"  {item.example.origin or item.example.id}: {decision.said(item)}")
        if len(listed) > _LISTED:
            self._terminal.say(f"  … and {len(listed) - _LISTED:,} more")

    def _finish(self, question: str) -> Ending | None:
        """Asks whether the decisions are sent; None: go back to the last item."""
        while True:
            answer = self._keys.command(f"{question} [y]es, [n]o, [b]ack")
            if answer is None:
                return self._ended()
            match answer.lower():
                case "y" | "yes":
                    return Ending.SEND
                case "b" | "back":
                    return None
                case "n" | "no" | "ctrl-c" | "escape":
                    save = self._keys.command("Save the decisions to a file, to be sent later? [y]es, [n]o")
                    return Ending.DROP if save is not None and save.lower() in ("n", "no") else Ending.SAVE
