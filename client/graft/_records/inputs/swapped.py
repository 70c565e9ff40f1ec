"""Whether inputs and labels look swapped: the labels are longer than the inputs, and more of them are different."""

from __future__ import annotations

from typing import Final

_MOST: Final = 5_000
"""So many examples tell."""
_LEAST: Final = 8
"""Of fewer examples nothing is said."""
_MORE: Final = 2.0
"""So many times as many labels as inputs are different. An input has one label, so that this is 1 at most where nothing
is swapped and every example is labelled as it is meant."""
_LONGER: Final = 1.5
"""So many times as long are labels as inputs."""
_ONCE: Final = 0.9
"""Where so many of the labels occur once, they are none: then it is enough that some input recurs."""


class SwapGuess:
    """Looks at the first 5,000 examples whose input and label are texts."""

    def __init__(self) -> None:
        self._count = 0
        self._inputs: set[str] = set()
        self._labels: set[str] = set()
        self._input_characters = 0
        self._label_characters = 0

    @property
    def open(self) -> bool:
        """Whether further examples are looked at."""
        return self._count < _MOST

    def add(self, text: object, label: object) -> None:
        """Looks at an example."""
        if not (self.open and isinstance(text, str) and isinstance(label, str) and text and label):
            return
        self._count += 1
        self._inputs.add(text)
        self._labels.add(label)
        self._input_characters += len(text)
        self._label_characters += len(label)

    @property
    def likely(self) -> bool:
        """Whether they look swapped."""
        inputs, labels = len(self._inputs), len(self._labels)
        longer = self._label_characters >= _LONGER * self._input_characters
        more = labels >= _MORE * inputs or (labels >= _ONCE * self._count and labels > inputs)
        return self._count >= _LEAST and longer and more

    def said(self) -> str:
        """What was seen, in a sentence; "" where nothing looks swapped."""
        if not self.likely:
            return ""
        label_length, input_length = (
            it / self._count for it in (self._label_characters, self._input_characters)
        )
        return (
            f"inputs and labels look swapped: {self._count:,} examples have {len(self._labels):,} different labels of "
            f"{label_length:.0f} characters on average, for {len(self._inputs):,} different "
            f"input{'' if len(self._inputs) == 1 else 's'} of {input_length:.0f}"
        )
