"""Where the command line writes: a console on which texts from outside are characters, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from graft._report.words import printable


class Screen(Console):
    """A console of rich that leaves out of every text what would act on the terminal.

    Labels, texts, names and messages come from data files and from the server. rich passes the escape sequences in them
    on, which move the cursor, change colours or write to the clipboard. Those that rich makes itself stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments that rich makes, with texts that act on nothing."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
