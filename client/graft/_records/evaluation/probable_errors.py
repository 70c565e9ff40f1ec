"""Examples whose label is worth a second look, with what they are, so that a person can correct or confirm them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graft._records.evaluation.reports import LabelError
from graft._records.inputs.examples import Example
from graft._records.inputs.label_cells import cell_of
from graft._records.stored_examples import StoredExample


@dataclass(frozen=True, slots=True)
class ProbableError:
    """A training example whose label may be wrong, or merely hard to see."""

    example: StoredExample
    """The example, as the version was trained on it."""
    suggested: str | tuple[str, ...]
    """The label that heads trained without the example find best; for a multi-label model the set of labels."""
    probability: float
    """The probability that such a head gives the example's own label, 0 to 1."""
    suggested_probability: float
    """The probability that it gives the suggested one, 0 to 1."""

    @property
    def suggested_cell(self) -> str:
        """The suggestion in one cell of a line."""
        return self.suggested if isinstance(self.suggested, str) else cell_of(self.suggested)

    def corrected(self, target: str | Iterable[str] | None = None) -> Example:
        """Returns the example with another label, to be sent to `adapt`; it counts as confirmed.

        Args:
            target: The label, or the set of labels. None: the suggested one.
        """
        chosen = self.suggested if target is None else target
        if isinstance(self.suggested, str):
            return self.example.example(label=chosen, confirmed=True)
        labels = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        return self.example.example(labels=labels, confirmed=True)

    def kept(self) -> Example:
        """Returns the example with its label confirmed, to be sent to `adapt`: it is not listed again."""
        return self.example.example(confirmed=True)


def probable_errors(
    errors: Sequence[LabelError], examples: Mapping[str, StoredExample], classes: Sequence[str]
) -> list[ProbableError]:
    """Joins a report's label errors with the examples, least likely label first; one for each example.

    Args:
        errors: The report's.
        examples: The examples by id; those that are not among them are left out.
        classes: The labels that the version answers with, in output order.
    """
    found: dict[str, ProbableError] = {}
    for error in sorted(errors, key=lambda it: it.probability):
        example = examples.get(error.example.id)
        if example is None or example.confirmed:
            continue
        before = found.get(example.id)
        suggested = _suggested(error, example, before, classes)
        found[example.id] = (
            ProbableError(example, suggested, error.probability, error.suggested_probability)
            if before is None
            else ProbableError(example, suggested, before.probability, before.suggested_probability)
        )
    return list(found.values())


def _suggested(
    error: LabelError, example: StoredExample, before: ProbableError | None, classes: Sequence[str]
) -> str | tuple[str, ...]:
    """What the example should carry; a set takes over all that is suggested for it."""
    if example.labels is None:
        return error.suggested
    own, chosen = set(example.labels), set(example.labels if before is None else before.suggested)
    for label in classes:
        # The report joins the names of the whole set, which cannot be taken apart where a name has a comma.
        if ", ".join(it for it in classes if it in own ^ {label}) == error.suggested:
            chosen ^= {label}
            break
    return tuple(it for it in classes if it in chosen)
