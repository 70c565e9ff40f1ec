"""What the names of labels say to a backbone: features of their texts, encoded once and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graft_server.adapting.intake.features import STORED_TYPE
from graft_server.domain.examples import Label
from graft_server.encoding.trunk import Trunk
from graft_server.store.adaptations.features import Features

REMEMBERED = 4_096
"""Texts, about 3 KB each."""


class LabelNames:
    """Features of labels' names and descriptions. Belongs to one event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], dict[str, NDArray[np.float16]]] = OrderedDict()

    async def features(self, labels: Sequence[Label], trunk: Trunk) -> Features:
        """View name to features of n >= 1 labels, shape (n, d); none where the backbone reads no names.

        Raises:
            BackboneError: The backbone cannot be used now.
        """
        if not trunk.reads_names:
            return {}
        texts = [label.text for label in labels]
        known = {text: self._known.get((trunk.encoder_id, text)) for text in texts}
        unknown = [text for text, views in known.items() if views is None]
        if unknown:
            encoded = await trunk.encode_names(unknown)
            for row, text in enumerate(unknown):
                known[text] = self._remember(
                    (trunk.encoder_id, text),
                    {view: array[row].astype(STORED_TYPE) for view, array in encoded.items()},
                )
        rows = [views for text in texts if (views := known[text]) is not None]
        return {view: np.stack([row[view] for row in rows]) for view in rows[0]}

    def _remember(
        self, key: tuple[str, str], views: dict[str, NDArray[np.float16]]
    ) -> dict[str, NDArray[np.float16]]:
        self._known[key] = views
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return views
