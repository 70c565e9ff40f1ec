"""The report on a version: the plain form of `report.proto`, kept with the version as JSON.

Every figure is measured on examples that the measured head was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from graft_server.domain.examples import Task
from graft_server.domain.method import Method

CONFIDENCE = 0.9
"""The share of regression intervals that should hold the true value."""
MAX_CONFUSIONS = 50
"""The most pairs that a report lists, so that it stays small with many classes."""


class EvaluationMethod(StrEnum):
    """A way to measure a model on examples that it was not trained on."""

    NONE = "none"
    """Not evaluated: too few examples."""
    CROSS_VALIDATION = "cross_validation"
    """Every example was predicted by a head trained without its fold."""
    HELD_OUT = "held_out"
    """The validation examples were predicted by the final head."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The examples that the figures of a report were measured on."""

    method: EvaluationMethod
    folds: int = 0
    """Folds of the cross-validation; 0 for a held-out set."""
    examples: int = 0
    """The number of evaluated examples."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One head that selection tried."""

    kind: str
    view: str
    settings: Mapping[str, float]
    log_loss: float = 0.0
    """The cross-validated log-loss after calibration, in nats; 0 for a regression."""
    accuracy: float = 0.0
    """The cross-validated accuracy, 0 to 1; of single-label tasks only."""
    micro_f1: float = 0.0
    """The cross-validated score, 0 to 1; of multi-label tasks only."""
    rmse: float = 0.0
    """The cross-validated error in the values' unit; of regressions only."""


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The head that selection chose, and the candidates that it chose from."""

    kind: str
    view: str
    settings: Mapping[str, float]
    temperature: float
    """The divisor of the logits, chosen on out-of-fold predictions; of single-label tasks only."""
    candidates: tuple[Candidate, ...] = ()
    """Best first."""


@dataclass(frozen=True, slots=True)
class ClassReport:
    """How well one class is recognised."""

    label: str
    examples: int
    """Training examples."""
    support: int
    """Evaluated examples that carry the label."""
    precision: float
    recall: float
    f1: float
    threshold: float = 0.0
    """The least probability at which the label is selected; of multi-label tasks only."""
    truncated: int = 0
    """Training examples whose end was cut off, because they are longer than the backbone reads."""


@dataclass(frozen=True, slots=True)
class MultiLabelFigures:
    """How good a multi-label version is, on top of the figures that every version with labels has."""

    micro_f1: float
    """F1 over all decisions about all labels together, 0 to 1."""
    hamming_loss: float
    """The share of all decisions that are wrong."""
    labels_per_example: float
    """The mean number of labels that an example carries."""
    selected_per_example: float
    """The mean number of labels that are selected."""


@dataclass(frozen=True, slots=True)
class RegressionFigures:
    """How good a version is that predicts numbers, in the values' unit."""

    rmse: float
    mae: float
    r2: float
    """The share of the variance that the version explains, at most 1."""
    confidence: float
    """The share of intervals that should hold the true value."""
    coverage: float
    """The share of intervals that do hold the true value."""
    interval_width: float
    """The mean width of an interval."""
    mean: float
    """The mean of the values."""
    deviation: float
    """The values' standard deviation."""


@dataclass(frozen=True, slots=True)
class PredictedValue:
    """An evaluated example of a regression."""

    value: float
    predicted: float
    low: float
    high: float
    id: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many evaluated examples of one label were answered with another."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The evaluated examples whose best label got a probability within one of 15 equal intervals."""

    examples: int
    confidence: float
    """The mean probability of their best labels."""
    accuracy: float
    """The share of them whose best label is right."""


@dataclass(frozen=True, slots=True)
class NoveltyReport:
    """When a version abstains."""

    threshold: float
    """A prediction with a novelty above this is marked as abstained."""
    false_alarm_rate: float
    """The share of inputs like the training examples that are above the threshold."""


@dataclass(frozen=True, slots=True)
class ExampleRef:
    """A reference to an example; its input is never quoted."""

    id: str
    writer_id: str
    sequence: int
    label: str
    """The label, the most probable label of a distribution, a set's labels joined by ", ", or the number."""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Training examples with the same or nearly the same input."""

    examples: tuple[ExampleRef, ...]
    """At most 10 of the examples."""
    count: int
    """The number of examples in the group."""
    similarity: float
    """The cosine of the features; 1 for equal inputs."""


@dataclass(frozen=True, slots=True)
class LabelError:
    """A training example whose label is worth a second look. It may be wrong, or merely hard to see."""

    example: ExampleRef
    suggested: str
    """The label that the head, trained without the example, finds best."""
    probability: float
    """The probability that this head gives the example's own label."""
    suggested_probability: float


@dataclass(frozen=True, slots=True)
class LabelCount:
    """A label, and how many examples carry it."""

    label: str
    examples: int


@dataclass(frozen=True, slots=True)
class SimilarLabels:
    """Labels that a person would read as one: they differ by case, spacing or invisible characters only."""

    labels: tuple[LabelCount, ...]
    """Most frequent first."""


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """How far the figures rest on inputs that look like one another, as photographs of one object do."""

    groups: int
    """Groups of two examples or more."""
    examples: int
    """Examples in such groups."""
    accuracy: float
    """0 to 1, when whole groups are held out; of a regression the share of variance explained."""
    low: float
    """The lower end of its 95% interval."""
    high: float
    """The upper end of its 95% interval."""
    largest: tuple[DuplicateGroup, ...] = ()
    """The largest groups, largest first, at most 10."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """Findings in the training examples themselves. Lists have at most 50 entries; counts cover all."""

    exact_duplicates: int
    """Examples that could be left out without losing an input."""
    near_duplicates: int
    """Pairs of different inputs whose features are nearly the same."""
    conflicting_inputs: int
    """Inputs that occur with several labels, sets of labels, or values."""
    duplicate_groups: tuple[DuplicateGroup, ...] = ()
    """The groups of duplicates, largest first."""
    near_duplicate_pairs: tuple[DuplicateGroup, ...] = ()
    """The closest pairs first."""
    conflicts: tuple[DuplicateGroup, ...] = ()
    label_errors: tuple[LabelError, ...] = ()
    """The most doubtful labels first."""
    probable_label_errors: int = 0
    """Training examples whose label is worth a second look."""
    read_alike: int = 0
    """Examples that could be left out without losing anything that the backbone reads."""
    bound_examples: int = 0
    """Examples that share their fold with another one because both are copies or near copies of each other."""
    validation_copies: int = 0
    """Validation examples that were left out of the figures because training examples are copies of them."""
    validation_copy_pairs: tuple[DuplicateGroup, ...] = ()
    """Such validation examples, each with the training example."""
    similar_labels: tuple[SimilarLabels, ...] = ()
    """Labels that are probably meant to be one."""
    unlabelled_examples: int = 0
    """Examples without a target, which were not trained on."""
    confirmed_examples: int = 0
    """Examples that were trained on whose target a person has confirmed: none is among the doubtful ones."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How good a version is at a number of training examples, with an 80% interval."""

    examples: int
    accuracy: float
    """The accuracy; micro-F1 for several labels, the share of variance explained for numbers."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassAdvice:
    """What more examples of one class would bring."""

    label: str
    more_examples: int
    gain: float
    """The gain in the class's recall, 0 to 1. Accuracy over all classes gains little: other classes lose as much."""
    low: float
    high: float
    """An 80% interval of the gain."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How accuracy grows with examples."""

    points: tuple[CurvePoint, ...]
    """Measured with logistic regression (ridge regression for numbers) on parts of the examples."""
    forecasts: tuple[CurvePoint, ...]
    """The expected accuracy of the chosen head with more examples of every class."""
    advice: tuple[ClassAdvice, ...]
    """The classes that more examples would help most, most helped first."""


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A training example on a plane that keeps classes apart."""

    x: float
    y: float
    label: str
    id: str


@dataclass(frozen=True, slots=True)
class TuningPoint:
    """How good a state was on the examples that decide when training ends."""

    epoch: float
    log_loss: float
    accuracy: float
    train_loss: float = 0.0
    seconds: float = 0.0
    """Seconds since training began."""


class TuningObjective(StrEnum):
    """What a tuning of the backbone minimises."""

    CROSS_ENTROPY = "cross_entropy"
    """The loss of a linear head, which is tuned along."""
    CONTRASTIVE = "contrastive"
    """A loss that draws the features of a class together, and apart from those of others."""


@dataclass(frozen=True, slots=True)
class TuningReport:
    """The report on tuning the backbone: what was tried, its gain, and its cost at serving."""

    method: Method
    """PARTIAL or FULL."""
    kept: bool
    """Whether the version is the tuned one."""
    ended: str
    """"done", "no_gain", "time", "no_time", "diverged", "too_few", "features" or "failed"; see report.proto."""
    unfrozen_layers: int
    layers: int
    parameters: int = 0
    measured: int = 0
    """The number of held-out examples that both heads were measured on."""
    frozen_log_loss: float = 0.0
    tuned_log_loss: float = 0.0
    gain_error: float = 0.0
    """The standard error of the difference between the two."""
    frozen_accuracy: float = 0.0
    tuned_accuracy: float = 0.0
    learning_rate: float = 0.0
    diverged: int = 0
    seconds: float = 0.0
    examples_per_second: float = 0.0
    own_share: float = 0.0
    """The share of the backbone that runs for this version alone, 0 to 1."""
    bytes: int = 0
    """The size of the tuned graph in bytes."""
    history: tuple[TuningPoint, ...] = ()
    objective: TuningObjective = TuningObjective.CROSS_ENTROPY
    label_names: bool = False
    """Whether the names of the labels were members of their classes."""
    folds: int = 0
    """The folds of the cross-fitting that the figures come from; 0: examples held out from the only tuning."""
    tuned_share: float = 0.0
    """How far the served version is the tuned one, 0 to 1; 0 where nothing was blended."""
    rank: int = 0
    """The rank of the layers' low-rank updates; 0: whole layers are kept."""
    full_bytes: int = 0
    """What whole layers would take; 0 where they are what is kept."""
    accuracy_gain_error: float = 0.0
    """The standard error of the difference between the two accuracies; 0: not known."""


@dataclass(frozen=True, slots=True)
class UnlabelledReport:
    """What the examples without a target brought, and how far they are like those with one."""

    examples: int
    """How many carry no target."""
    used: int = 0
    """How many of them were tried in training."""
    kept: bool = False
    """Whether the version was trained with them."""
    weight: float = 0.0
    """What an unlabelled example counts in training against a labelled one, 0 to 1."""
    log_loss_before: float = 0.0
    """Cross-validated, in nats, without them."""
    log_loss_after: float = 0.0
    """Cross-validated, in nats, with them."""
    gain_error: float = 0.0
    """The standard error of the difference between the two."""
    novel_share: float = 0.0
    """The share of them that are novel to the head, 0 to 1."""
    drift: float = 0.0
    """How much larger that share is among the newer half of them than among the older half, -1 to 1."""


class AdviceKind(StrEnum):
    """What a version lacks most."""

    LABELS = "labels"
    """More labelled examples."""
    TIME = "time"
    """Time to tune the backbone in."""
    BACKBONE = "backbone"
    """Another backbone."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that would make a version better."""

    kind: AdviceKind
    text: str
    """One or two sentences, with the ranges and what they come from."""
    expected_gain: float = 0.0
    """In accuracy, 0 to 1 (micro-F1 for several labels, the share of variance explained for numbers); 0: not
    estimated."""
    expected_gain_low: float = 0.0
    expected_gain_high: float = 0.0
    """An 80% interval of the gain."""
    cost_seconds: float = 0.0
    """The time budget that it takes; 0: none."""
    cost_examples: int = 0
    """How many more labelled examples it takes; 0: none."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """Why the server made a version by itself: another one's encoder is not the one that its backbone has."""

    version: int
    """The version that was made of the same examples."""
    encoder_id: str
    """The encoder that it was trained on."""


@dataclass(frozen=True, slots=True)
class Report:
    """One version: what it was trained on, what was chosen, and how good it is.

    Selection fills in everything but the identity at the end, which the caller adds.
    """

    examples: int
    """How many examples the version was trained on."""
    validation_examples: int
    classes: int
    """0 for a regression, as are the next four."""
    accuracy: float
    """0 to 1, weighted by example weight; for several labels, the share of examples with exactly the right ones."""
    macro_f1: float
    """The mean of F1 over the evaluated classes, 0 to 1."""
    log_loss: float
    """In nats."""
    calibration_error: float
    """Over 15 equally wide bins of confidence, 0 to 1."""
    evaluation: Evaluation
    head: HeadChoice
    per_class: tuple[ClassReport, ...]
    """In output order."""
    confusions: tuple[Confusion, ...] = ()
    """Most frequent first, at most MAX_CONFUSIONS."""
    warnings: tuple[str, ...] = field(default=())
    seed: int = 0
    reliability: tuple[ReliabilityBin, ...] = ()
    """15 bins, by rising confidence."""
    novelty: NoveltyReport | None = None
    data: DataReport | None = None
    learning_curve: LearningCurve | None = None
    """None where too little can be measured."""
    feature_map: tuple[MapPoint, ...] = ()
    """A sample of at most 1,000 training examples."""
    task: Task = Task.DEFAULT
    multi_label: MultiLabelFigures | None = None
    """None for other tasks."""
    regression: RegressionFigures | None = None
    """None for other tasks."""
    predicted_values: tuple[PredictedValue, ...] = ()
    """A sample of at most 500 evaluated examples of a regression."""
    tuning: TuningReport | None = None
    """None where it was not tried; of several the one that was kept, or else the last."""
    other_tunings: tuple[TuningReport, ...] = ()
    """The others, in the order in which they were tried."""
    accuracy_low: float = 0.0
    """The lower end of the accuracy's 95% interval, 0 to 1."""
    accuracy_high: float = 0.0
    """The upper end of the accuracy's 95% interval, 0 to 1."""
    look_alikes: LookAlikes | None = None
    """None where no groups of look-alikes were found."""
    truncated_examples: int = 0
    """Training examples whose end was cut off, because they are longer than the backbone reads."""
    method: Method = Method.FROZEN
    backbone: str = ""
    encoder_id: str = ""
    trained_time_s: float = 0.0
    """Seconds since the epoch."""
    training_duration_s: float = 0.0
    renewal: Renewal | None = None
    """None where somebody asked for the version."""
    evaluation_digest: str = ""
    """Equal for versions that were measured on the same examples by the same method; "" if that is not known."""
    unlabelled: UnlabelledReport | None = None
    """None where there are no examples without a target."""
    advice: tuple[Advice, ...] = ()
    """What would make the version better, most worth doing first."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Accuracy and its kin, each weighted by example weight."""

    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    accuracy_low: float = 0.0
    """The lower end of the accuracy's 95% interval, 0 to 1."""
    accuracy_high: float = 0.0
    """The upper end of the accuracy's 95% interval, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a version is on n examples."""

    task: Task
    examples: int
    figures: Figures = field(default_factory=lambda: Figures(0.0, 0.0, 0.0, 0.0))
    per_class: tuple[ClassReport, ...] = ()
    """The classes in the examples, sorted by label; none has training examples."""
    confusions: tuple[Confusion, ...] = ()
    multi_label: MultiLabelFigures | None = None
    regression: RegressionFigures | None = None


def summary_of(report: Report) -> Report:
    """A report's figures, without its lists.

    The catalogue, which keeps them, is replayed at every start and never forgets: so they name no example.
    """
    return replace(
        report,
        head=replace(report.head, candidates=()),
        tuning=replace(report.tuning, history=()) if report.tuning else None,
        other_tunings=(),
        per_class=(),
        confusions=(),
        warnings=(),
        reliability=(),
        data=None,
        learning_curve=None,
        feature_map=(),
        predicted_values=(),
        look_alikes=replace(report.look_alikes, largest=()) if report.look_alikes else None,
        advice=(),
    )
