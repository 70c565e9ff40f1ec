"""Lists adaptations, and removes one."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime

from graft_server.domain.adaptation import Start
from graft_server.domain.errors import CorruptError, MissingError, NewerError
from graft_server.domain.names import is_model, shown
from graft_server.store.adaptations.keys import adaptation_folder, is_stored_name, parsed_name, start_key
from graft_server.store.catalogue.versions import model_folder
from graft_server.store.objects.objects import ObjectMissingError, Objects

_log = logging.getLogger(__name__)

_AT_ONCE_S = 0.002
KEPT_BEGINNINGS = 50_000
"""Adaptations, about 200 B each."""


def missing_adaptation(model: str, adaptation_id: str) -> MissingError:
    """Returns the error for an adaptation that does not exist."""
    return MissingError(
        f"Model {shown(model)} has no adaptation {shown(adaptation_id)}: ListAdaptations lists those it has.",
        reason="ADAPTATION_NOT_FOUND",
        field="adaptation_id",
    )


class Beginnings:
    """When the adaptations of models began, as far as that was read lately. Thread-safe.

    What else a start says may be megabytes of labels, and is not kept.
    """

    def __init__(self, objects: Objects, kept: int = KEPT_BEGINNINGS) -> None:
        """Reads nothing yet; keeps the times of up to `kept` adaptations, those of the models last asked for."""
        self._objects = objects
        self._kept = kept
        self._lock = threading.Lock()
        self._known: OrderedDict[str, dict[str, datetime]] = OrderedDict()

    def __len__(self) -> int:
        """The number of models of which something is kept."""
        return len(self._known)

    def of(self, model: str) -> dict[str, datetime | None]:
        """Returns when each of a model's adaptations began, by the name that it is stored by.

        None stands for one that is damaged, or that a newer release began.
        """
        with self._lock:
            known = self._known.get(model, {})
        found: dict[str, datetime | None] = {}
        for name in list_adaptations(self._objects, model):
            try:
                found[name] = known.get(name) or self._objects.get_json(start_key(model, name), Start).created
            except ObjectMissingError:
                continue  # it was deleted meanwhile
            except (CorruptError, NewerError):
                found[name] = None
        self._keep(model, {name: created for name, created in found.items() if created})
        return found

    def _keep(self, model: str, known: dict[str, datetime]) -> None:
        with self._lock:
            self._known.pop(model, None)
            if known:
                self._known[model] = known
            while sum(map(len, self._known.values())) > self._kept:
                self._known.popitem(last=False)


def list_adaptations(objects: Objects, model: str) -> list[str]:
    """Returns the names that a model's adaptations are stored by, sorted."""
    # A deletion, or a crash before the start was durable, leaves a folder without a start.
    return [it for it in _names(objects, model) if objects.exists(start_key(model, it))]


def _names(objects: Objects, model: str) -> list[str]:
    """The names of a model's adaptations, also of those without a start; others are logged."""
    folder = f"{model_folder(model)}adaptations/"
    names = objects.folders(folder)
    for stray in (it for it in names if not is_stored_name(it)):
        _log.warning("store: %s%s is the name of no adaptation: it is passed over", folder, stray)
    return [it for it in names if is_stored_name(it)]


def list_all_adaptations(objects: Objects, *, gently: bool = False) -> Iterator[tuple[str, str]]:
    """Yields model and stored name of every adaptation in the store, also of models without a version.

    Args:
        objects: The store.
        gently: Whether to rest half of the time, so that a thread that walks through ten thousand models does not keep
            the others waiting.
    """
    unvisited = [""]
    began = time.monotonic()
    while unvisited:
        if gently and time.monotonic() - began > _AT_ONCE_S:
            time.sleep(_AT_ONCE_S)
            began = time.monotonic()
        namespace = unvisited.pop()
        for segment in objects.folders(f"models/{namespace}"):
            if segment == "_":
                model = namespace.rstrip("/")
                if not is_model(model):
                    _log.warning("store: models/%s is the name of no model: it is passed over", model)
                    continue
                yield from ((model, it) for it in list_adaptations(objects, model))
            else:
                unvisited.append(f"{namespace}{segment}/")


def may_go_on(objects: Objects, model: str, name: str) -> bool:
    """Whether a server may have something to do for an adaptation: it is open, or has a commit without an outcome.

    It looks at names alone, which is much less than reading the adaptation.
    """
    folder = adaptation_folder(model, name)
    commits, outcomes = (set(objects.names_after(f"{folder}{it}/", "")) for it in ("commits", "outcomes"))
    return bool(commits - outcomes) or not any(
        objects.exists(f"{folder}{it}.json") for it in ("closing", "cancelled")
    )


def deleted_adaptations(objects: Objects, model: str, deletion: int) -> list[str]:
    """Returns the stored names of adaptations that a deletion of their model includes, by the number of its entry.

    A damaged one, which does not say when it began, is included; so are the remains of one without a start. One that
    a newer release began is not: that release removes it.
    """
    found = []
    for name in _names(objects, model) if deletion else ():
        if parsed_name(name)[1] >= deletion:
            continue  # it began after that
        try:
            start = objects.get_json(start_key(model, name), Start)
        except NewerError as error:
            _log.warning("an adaptation of the deleted model %s is left: %s", model, error.message)
        except CorruptError:
            found.append(name)
        except ObjectMissingError:
            if objects.keys(adaptation_folder(model, name)):
                found.append(name)
        else:
            if start.born < deletion:
                found.append(name)
    return found


def remove_adaptation(objects: Objects, model: str, name: str) -> None:
    """Deletes an adaptation with its examples and features, by the name that it is stored by.

    The start is deleted last: while it exists, a deletion that was cut off can be noticed and finished.
    """
    start = start_key(model, name)
    objects.delete([it for it in objects.keys(adaptation_folder(model, name)) if it != start])
    objects.delete([start])
