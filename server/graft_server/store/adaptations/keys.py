"""The keys of an adaptation's objects."""

from __future__ import annotations

import re

from graft_server.domain.names import IDENTIFIER
from graft_server.store.catalogue.versions import model_folder


def stored_name(adaptation_id: str, deletion: int) -> str:
    """Returns the name by which an adaptation is stored.

    If its model was deleted before it began, an older adaptation may have had its id, and a server may still be
    removing that one's objects: so the new one has a name of its own, which no id can be.

    Args:
        adaptation_id: Its id.
        deletion: The number of the catalogue's entry that last deleted the model, or 0.
    """
    return f"{adaptation_id}@{deletion}" if deletion else adaptation_id


_NAME = re.compile(rf"({IDENTIFIER})(?:@([1-9][0-9]{{0,19}}))?")


def is_stored_name(name: str) -> bool:
    """Whether `stored_name` can have made a name: any other is not this software's."""
    return _NAME.fullmatch(name) is not None


def parsed_name(name: str) -> tuple[str, int]:
    """Returns the id and the deletion from which `stored_name` made a name."""
    adaptation_id, _, deletion = name.partition("@")
    return adaptation_id, int(deletion or 0)


def adaptation_folder(model: str, name: str) -> str:
    """Returns the prefix of an adaptation's objects, by the name that it is stored by."""
    return f"{model_folder(model)}adaptations/{name}/"


def writer_folder(model: str, name: str, writer_id: str) -> str:
    """Returns the prefix of a writer's segments, by the name that the adaptation is stored by."""
    return f"{adaptation_folder(model, name)}writers/{writer_id}/"


def features_key(model: str, name: str, encoder_id: str, writer_id: str, segment: str) -> str:
    """Returns the key of the features of a segment, by the names of adaptation and segment."""
    return f"{adaptation_folder(model, name)}features/{encoder_id}/{writer_id}/{segment}.bin"


def start_key(model: str, name: str) -> str:
    """Returns the key of how an adaptation began, by the name that it is stored by."""
    return f"{adaptation_folder(model, name)}start.json"


def index_key(model: str, name: str, writer_id: str, segment: str) -> str:
    """Returns the key of the index of a rewritten segment, by the names of adaptation and segment."""
    return f"{adaptation_folder(model, name)}indexes/{writer_id}/{segment}.bin"
