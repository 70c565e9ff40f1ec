"""How an `adapt` call shows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graft._progress.display import display_of
from graft._progress.view import AdaptView
from graft._records.adapting.told import AdaptProgress

OnProgress = Callable[[AdaptProgress], None]


@contextmanager
def shown(progress: bool | None, on_progress: OnProgress | None) -> Iterator[OnProgress | None]:
    """Shows how far a call is, for as long as the block runs, to whoever runs a script or a notebook.

    Args:
        progress: Whether to show it; None: in a notebook, where nothing else is told.
        on_progress: Whom the caller wants to be told.

    Yields:
        Whom to tell; None: nobody.
    """
    view = AdaptView()
    display = display_of(view, False if progress is None and on_progress is not None else progress)
    if display is None:
        yield on_progress
        return

    def tell(told: AdaptProgress) -> None:
        view.show(told)
        if on_progress is not None:
            on_progress(told)

    with display:
        yield tell
