"""Lists adaptations, and removes one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from graft_server.domain.adaptation import Start
from graft_server.domain.errors import CorruptError, MissingError, NewerError
from graft_server.domain.names import is_model, shown
from graft_server.store.adaptations.keys import adaptation_folder, is_stored_name, parsed_name, start_key
from graft_server.store.catalogue.versions import model_folder
from graft_server.store.objects.objects import ObjectMissingError, Objects

_log = logging.getLogger(__name__)


def missing_adaptation(model: str, adaptation_id: str) -> MissingError:
    """Returns the error for an adaptation that does not exist."""
    return MissingError(
        f"Model {shown(model)} has no adaptation {shown(adaptation_id)}: ListAdaptations lists those it has.",
        reason="ADAPTATION_NOT_FOUND",
        field="adaptation_id",
    )


def read_starts(objects: Objects, model: str, known: dict[str, Start]) -> dict[str, Start | None]:
    """Returns how each of a model's adaptations began, by the name that it is stored by.

    None stands for one that is damaged, or that a newer release began.

    Args:
        objects: The store.
        model: The model.
        known: The starts read before; newly read ones are added, deleted ones removed.
    """
    found: dict[str, Start | None] = {}
    for name in list_adaptations(objects, model):
        try:
            found[name] = known.get(name) or objects.get_json(start_key(model, name), Start)
        except ObjectMissingError:
            continue  # it was deleted meanwhile
        except (CorruptError, NewerError):
            found[name] = None
    known.clear()
    known.update((it, start) for it, start in found.items() if start)
    return found


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


def list_all_adaptations(objects: Objects) -> Iterator[tuple[str, str]]:
    """Yields model and stored name of every adaptation in the store, also of models without a version."""
    unvisited = [""]
    while unvisited:
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
