"""Two versions of a model on the same examples, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better or worse the second version is: its figure less the first one's."""

    value: float
    """The difference."""
    low: float
    """The lower end of its 95% interval."""
    high: float
    """The upper end."""
    method: str
    """Where the interval comes from."""

    @property
    def sure(self) -> bool:
        """Whether the interval holds no difference on one side of 0 alone."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """An example that the versions answer otherwise."""

    index: int
    """Its place among the examples, from 0."""
    truth: str
    """What it should be answered with."""
    first: str
    """What the first version answers."""
    second: str
    """What the second one answers."""
    kind: str
    """ "mended" (wrong, then right), "broken" (right, then wrong) or "other" (neither is right); of a regression
    "nearer" or "farther"."""


@dataclass(frozen=True, slots=True)
class ClassChange:
    """The examples that carry a label."""

    label: str
    """The label."""
    examples: int
    """How many there are."""
    first_right: int
    """How many of them the first version gives the label."""
    second_right: int
    """How many the second one gives it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions on the same examples, none of which either was trained on."""

    model: str
    """The model's name."""
    first: int
    """The first version."""
    second: int
    """The second one."""
    task: str
    """What they answer with."""
    examples: int
    """How many examples both were measured on; where it is 0, there are no figures."""
    figure: str
    """What is compared: "accuracy" (of whole sets of labels, where there are several), or "mean absolute error"."""
    first_figure: float
    """The first version's."""
    second_figure: float
    """The second one's."""
    difference: Difference | None
    """The difference; None without examples."""
    trained_on_first: tuple[int, ...] = field(default=(), repr=False)
    """The places of the examples that were left out because the first version was trained on them, or on copies."""
    trained_on_second: tuple[int, ...] = field(default=(), repr=False)
    """The same of the second version."""
    unlabelled: tuple[int, ...] = field(default=(), repr=False)
    """The places of the examples without a target, which are left out."""
    unanswered: tuple[int, ...] = field(default=(), repr=False)
    """The places of the examples that a version could not answer, which are left out."""
    training_examples_missing: bool = False
    """Whether some of the examples that a version was trained on can no longer be read."""
    micro_f1: tuple[float, float] | None = None
    """The micro-averaged F1 of the first and the second version, where there are several labels."""
    micro_f1_difference: Difference | None = None
    """Their difference."""
    changes: tuple[AnswerChange, ...] = field(default=(), repr=False)
    """The examples that they answer otherwise, in order."""
    per_class: tuple[ClassChange, ...] = field(default=(), repr=False)
    """The labels, those first whose examples changed most."""
    unknown_labels: tuple[str, ...] = ()
    """Labels of the examples that one of the versions cannot answer with."""

    @property
    def mended(self) -> int:
        """How many examples the second version alone answers right; of a regression, nearer to the truth."""
        return sum(it.kind in ("mended", "nearer") for it in self.changes)

    @property
    def broken(self) -> int:
        """How many the first one alone answers right; of a regression, nearer to the truth."""
        return sum(it.kind in ("broken", "farther") for it in self.changes)
