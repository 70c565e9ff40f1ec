"""What the names of labels say to a backbone: features of their texts, encoded once and remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.intake.features import STORED_TYPE
from graft_server.domain.caller import NOBODY, Caller
from graft_server.domain.examples import Label
from graft_server.encoding.trunk import Trunk
from graft_server.store.adaptations.features import Features

REMEMBERED = 16_384
"""Texts, about 3 KB each. The labels that were last asked for are remembered, however many they are."""

_Key = tuple[str, str]
"""An encoder's id and a text."""
_Views = dict[str, NDArray[np.float16]]


class LabelNames:
    """Features of labels' names and descriptions. Belongs to one event loop."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        """Remembers nothing yet, and later the features of so many texts: those that were last asked for."""
        self._remembered = remembered
        self._known: OrderedDict[_Key, _Views] = OrderedDict()
        self._encoding: WeakValueDictionary[Caller, asyncio.Lock] = WeakValueDictionary()

    async def features(self, labels: Sequence[Label], trunk: Trunk, caller: Caller = NOBODY) -> Features:
        """View name to features of n >= 1 labels, shape (n, d); none where the backbone reads no names.

        Args:
            labels: The labels.
            trunk: The backbone.
            caller: For whom they are encoded, in turns with others: what one needs is not encoded twice at once.

        Raises:
            BackboneError: The backbone cannot be used now.
        """
        if not trunk.reads_names:
            return {}
        keys = [(trunk.encoder_id, label.text) for label in labels]
        async with self._encoding.setdefault(caller, asyncio.Lock()):
            found = self._recalled(keys)
            unknown = [key for key in dict.fromkeys(keys) if key not in found]
            if unknown:
                encoded = await trunk.encode_names([text for _, text in unknown], caller)
                for row, key in enumerate(unknown):
                    found[key] = {view: array[row].astype(STORED_TYPE) for view, array in encoded.items()}
            self._remember(found)
        return {view: np.stack([found[key][view] for key in keys]) for view in found[keys[0]]}

    def _recalled(self, keys: Sequence[_Key]) -> dict[_Key, _Views]:
        return {key: views for key in keys if (views := self._known.get(key)) is not None}

    def _remember(self, found: Mapping[_Key, _Views]) -> None:
        for key, views in found.items():
            self._known[key] = views
            self._known.move_to_end(key)
        while len(self._known) > max(self._remembered, len(found)):
            self._known.popitem(last=False)
