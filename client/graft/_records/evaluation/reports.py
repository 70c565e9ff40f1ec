"""What is known about how good a version is, as plain data: mirrors report.proto.

A figure that was not measured is None, which is no number: 0.0 would read as "all wrong".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from graft._records.evaluation.quotes import Quotes
from graft._records.evaluation.shown import Saved


@dataclass(frozen=True, slots=True)
class ClassReport:
    """How well one class is recognised, on the evaluated examples."""

    label: str
    """The class."""
    examples: int
    """How many training examples it has."""
    support: int
    """How many evaluated examples carry it."""
    precision: float | None
    """Of the examples answered with this label, the share that carries it, 0 to 1; None: no evaluated example does."""
    recall: float | None
    """Of the examples that carry this label, the share answered with it, 0 to 1; None: no evaluated example does."""
    f1: float | None
    """The harmonic mean of precision and recall, 0 to 1; None: no evaluated example carries the label."""
    threshold: float = 0.0
    """The probability from which on the label is selected; of multi-label versions only."""
    truncated: int = 0
    """How many of its training examples are longer than the backbone reads, so that their end was cut off."""


@dataclass(frozen=True, slots=True)
class MultiLabelFigures:
    """How good a multi-label version is, on top of the figures that every version with labels has.

    Where nothing was measured, all but `labels_per_example` are None.
    """

    micro_f1: float | None
    """F1 over all decisions about all labels together, 0 to 1."""
    hamming_loss: float | None
    """The share of all decisions that are wrong, 0 to 1."""
    labels_per_example: float
    """How many labels an example carries, on average."""
    selected_per_example: float | None
    """How many labels were selected for an example, on average."""


@dataclass(frozen=True, slots=True)
class RegressionFigures:
    """How good a version is that answers with a number, in the examples' unit.

    Where nothing was measured, all but `confidence`, `mean` and `deviation` are None.
    """

    rmse: float | None
    """The root of the mean squared error."""
    mae: float | None
    """The mean absolute error."""
    r2: float | None
    """The share of the values' variance that is explained, at most 1."""
    confidence: float
    """How often an interval is meant to hold the truth, 0 to 1."""
    coverage: float | None
    """How often it did, 0 to 1."""
    interval_width: float | None
    """How wide intervals are, on average."""
    mean: float
    """The mean of the values."""
    deviation: float
    """The values' standard deviation."""


@dataclass(frozen=True, slots=True)
class PredictedValue:
    """An evaluated example of a regression."""

    value: float
    """The value that it carries."""
    predicted: float
    """The value that was predicted."""
    low: float
    """The lower end of the interval."""
    high: float
    """The upper end of the interval."""
    id: str
    """The example's id."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often examples of one label were answered with another."""

    label: str
    """What the examples carry."""
    predicted: str
    """What they were answered with."""
    count: int
    """How many."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One head that selection tried."""

    kind: str
    """The kind of head, for example "logistic"."""
    view: str
    """The features that it reads, for example "pooled"."""
    settings: Mapping[str, float]
    """Its settings by name."""
    log_loss: float | None
    """Cross-validated, after calibration, in nats; None for regressions."""
    accuracy: float | None
    """Cross-validated, 0 to 1; None for all but single-label versions, and where nothing was measured."""
    micro_f1: float | None = None
    """Cross-validated, 0 to 1; None for all but multi-label versions, and where nothing was measured."""
    rmse: float | None = None
    """Cross-validated; None for all but regressions, and where nothing was measured."""


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The head that selection settled on, and what it was chosen from."""

    kind: str
    """The kind of head, for example "logistic"."""
    view: str
    """The features that it reads, for example "pooled"."""
    settings: Mapping[str, float]
    """The chosen settings by name, for example {"C": 10}."""
    temperature: float
    """What the logits are divided by."""
    candidates: tuple[Candidate, ...]
    """What was tried, best first."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The evaluated examples whose best label got a probability within one of 15 equal intervals."""

    examples: int
    """How many there are."""
    confidence: float | None
    """The mean probability of their best labels, 0 to 1; None where there are none."""
    accuracy: float | None
    """The share of them whose best label is right, 0 to 1; None where there are none."""


@dataclass(frozen=True, slots=True)
class NoveltyReport:
    """When a version abstains."""

    threshold: float
    """Novelty above which a prediction is marked as abstained, 0 to 1."""
    false_alarm_rate: float
    """The share of inputs like the training examples that are above it, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ExampleRef:
    """Which training example is meant, without quoting its input."""

    id: str
    """Its id."""
    writer_id: str
    """The writer that sent it."""
    sequence: int
    """Its sequence within the adaptation and writer."""
    label: str
    """The label that it carries."""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Training examples with the same input, or nearly."""

    examples: tuple[ExampleRef, ...]
    """At most 10 of them."""
    count: int
    """How many there are."""
    similarity: float
    """Cosine of their features; 1 for equal inputs."""


@dataclass(frozen=True, slots=True)
class LabelError:
    """A training example whose label is worth a second look. It may be wrong, or merely hard to see."""

    example: ExampleRef
    """The example, with the label that it carries."""
    suggested: str
    """The label that a head trained without the example finds best."""
    probability: float
    """The probability that this head gives the example's own label, 0 to 1."""
    suggested_probability: float
    """The probability that it gives the suggested label, 0 to 1."""


@dataclass(frozen=True, slots=True)
class LabelCount:
    """A label with a number of examples."""

    label: str
    """The label."""
    examples: int
    """How many examples carry it."""


@dataclass(frozen=True, slots=True)
class SimilarLabels:
    """Labels that a person would read as one."""

    labels: tuple[LabelCount, ...]
    """The labels, most frequent first."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """Why the server made a version by itself: its backbone is another encoder than the one of the version before."""

    version: int
    """The version that was made of the same examples."""
    encoder_id: str
    """The encoder that it was trained on."""


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """How far the figures rest on inputs that look like one another, as photographs of one object do."""

    groups: int
    """How many groups of two examples or more were found."""
    examples: int
    """How many examples are in such groups."""
    accuracy: float
    """The accuracy when whole groups are held out, 0 to 1; of a regression the share of variance explained."""
    low: float
    """The lower end of its 95% interval."""
    high: float
    """The upper end of its 95% interval."""
    largest: tuple[DuplicateGroup, ...] = ()
    """The largest groups, largest first, at most 10."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """What the training examples themselves show. Its tuples have at most 50 entries; counts are of all."""

    exact_duplicates: int
    """Examples that could be left out without losing an input."""
    near_duplicates: int
    """Pairs of different inputs whose features are nearly the same."""
    conflicting_inputs: int
    """Inputs that occur under several labels."""
    duplicate_groups: tuple[DuplicateGroup, ...]
    """Examples with the same input, largest group first."""
    near_duplicate_pairs: tuple[DuplicateGroup, ...]
    """Pairs with nearly the same features, closest first."""
    conflicts: tuple[DuplicateGroup, ...]
    """Examples with the same input that carry several labels."""
    label_errors: tuple[LabelError, ...]
    """Examples whose label is worth a second look, most doubtful first."""
    probable_label_errors: int = 0
    """How many examples have a label that is worth a second look."""
    read_alike: int = 0
    """Examples that could be left out without losing anything that the backbone reads."""
    bound_examples: int = 0
    """Examples that share their fold with another one because both are copies or near copies of each other."""
    validation_copies: int = 0
    """Validation examples that were left out of the figures because training examples are copies of them."""
    validation_copy_pairs: tuple[DuplicateGroup, ...] = ()
    """Such validation examples, each with the training example."""
    similar_labels: tuple[SimilarLabels, ...] = ()
    """Labels that differ by case, spacing or invisible characters only, and are probably meant to be one."""
    unlabelled_examples: int = 0
    """Examples that carry no target; what came of them is in `unlabelled` of the report."""
    confirmed_examples: int = 0
    """Examples that were trained on whose target a person has confirmed: none is among the doubtful ones."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How good a version is at a number of training examples."""

    examples: int
    """How many training examples."""
    accuracy: float
    """Accuracy, 0 to 1; of several labels micro-F1, of numbers the share of variance explained, at most 1."""
    low: float
    """The lower end of its 80% interval."""
    high: float
    """The upper end of its 80% interval."""


@dataclass(frozen=True, slots=True)
class ClassAdvice:
    """What more examples of one class would bring."""

    label: str
    """The class."""
    more_examples: int
    """How many more examples."""
    gain: float
    """What they would add to the class's recall, 0 to 1. Accuracy over all classes gains little by one class alone."""
    low: float
    """The lower end of the gain's 80% interval."""
    high: float
    """The upper end of the gain's 80% interval."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How accuracy, micro-F1 or the variance explained grows with examples, by the task."""

    points: tuple[CurvePoint, ...]
    """Measured with logistic or ridge regression on parts of the examples, smallest part first."""
    forecasts: tuple[CurvePoint, ...]
    """What to expect of the chosen head with more examples of every class, fewest first."""
    advice: tuple[ClassAdvice, ...]
    """The classes that more examples would help most, first the most. Empty for numbers."""


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A training example on a plane along which the classes' means differ most."""

    x: float
    """Its place across."""
    y: float
    """Its place up."""
    label: str
    """Its label."""
    id: str
    """Its id."""


@dataclass(frozen=True, slots=True)
class TuningPoint:
    """How good a state was on the examples that training is ended by."""

    epoch: float
    """How many epochs had been trained."""
    train_loss: float
    """The training loss then, in nats, smoothed."""
    log_loss: float
    """On held-out examples, in nats."""
    accuracy: float
    """On them, 0 to 1."""
    seconds: float
    """Since training began."""


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What tuning the backbone did: what was tried, what it gained, and what it costs at serving."""

    method: str
    """What was tried: "partial" or "full"."""
    kept: bool
    """Whether the version is the tuned one; of `other_tunings`, whether it was better than what there was before."""
    ended: str
    """Why training ended: "done", "no_gain", "time", "no_time", "diverged", "too_few", "features" or "failed"."""
    unfrozen_layers: int
    """How many layers were tuned."""
    layers: int
    """How many the backbone has."""
    parameters: int
    """How many numbers were tuned, without the head."""
    measured: int
    """Held-out examples that the frozen head and the tuned version were both measured on; 0: the figures are None."""
    frozen_log_loss: float | None
    """The frozen head's log-loss on them, in nats."""
    tuned_log_loss: float | None
    """The tuned version's."""
    gain_error: float | None
    """The standard error of their difference."""
    frozen_accuracy: float | None
    """The frozen head's accuracy on them, 0 to 1."""
    tuned_accuracy: float | None
    """The tuned version's."""
    learning_rate: float
    """Of the uppermost layer."""
    diverged: int
    """How often training diverged and was taken back."""
    seconds: float
    """What it took."""
    examples_per_second: float
    """While training."""
    own_share: float
    """The share of the backbone that each input of this version has to itself at serving, 0 to 1."""
    bytes: int
    """The size of the tuned graph."""
    history: tuple[TuningPoint, ...]
    """The states that were evaluated, in order; the first is the head on the frozen backbone, and the last three are
    three quarters, half and a quarter of the way from there to what training ended with."""
    objective: str = "cross_entropy"
    """What the backbone was tuned for: "cross_entropy" or "contrastive"."""
    label_names: bool = False
    """Whether the names of the labels were members of their classes; of "contrastive" only."""
    folds: int = 0
    """The folds of the cross-fitting that the figures come from; 0: examples held out from the only tuning."""
    tuned_share: float | None = None
    """How far the served version is the tuned one, 0 to 1; None where nothing was blended."""
    rank: int = 0
    """The rank of the layers' low-rank updates; 0: whole layers are kept."""
    full_bytes: int = 0
    """What whole layers would take; 0 where they are what is kept."""
    accuracy_gain_error: float | None = None
    """The standard error of the difference between the two accuracies; None: not known."""


@dataclass(frozen=True, slots=True)
class UnlabelledReport:
    """What the examples without a target brought, and how far they are like those with one."""

    examples: int
    """How many examples carry no target."""
    used: int
    """How many of them were tried in training; 0: none, and the figures of loss are None."""
    kept: bool
    """Whether the version was trained with them: its log-loss without them was higher, beyond noise."""
    weight: float
    """What an unlabelled example counts in training against a labelled one, 0 to 1."""
    log_loss_before: float | None
    """Cross-validated, in nats, without them."""
    log_loss_after: float | None
    """Cross-validated, in nats, with them."""
    gain_error: float | None
    """The standard error of the difference between the two."""
    novel_share: float
    """The share of them that are novel to the head, 0 to 1: it abstains from an answer."""
    drift: float
    """How much larger that share is among the newer half of them than among the older half, -1 to 1; 0: no drift."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that would make a version better, and what that is expected from."""

    kind: str
    """What to give: "labels", "time" (to tune the backbone in) or "backbone" (another one)."""
    text: str
    """One or two sentences, with the ranges and what they come from."""
    expected_gain: float | None
    """By how much accuracy is expected to rise, 0 to 1 (of several labels micro-F1, of numbers the share of variance
    explained); None: not estimated."""
    expected_gain_low: float | None
    """The lower end of an 80% interval of it; below 0 where it may fall."""
    expected_gain_high: float | None
    """The upper end of the interval."""
    cost_seconds: float
    """The time budget that it takes, in seconds; 0: none."""
    cost_examples: int
    """How many more labelled examples it takes; 0: none."""


@dataclass(frozen=True, slots=True)
class Report(Saved):
    """What a version was trained on, and how good it is on examples that it was not trained on.

    Where there were too few examples to measure anything (`evaluation` is ""), every figure is None.
    """

    examples: int
    """How many examples it was trained on (validation examples not counted)."""
    validation_examples: int
    """How many examples were held out."""
    classes: int
    """How many classes it knows."""
    accuracy: float | None
    """The share of evaluated examples whose best label is right, 0 to 1, weighted; None: not measured."""
    macro_f1: float | None
    """The mean over the evaluated classes of F1, 0 to 1; None: not measured."""
    log_loss: float | None
    """The mean of -log(probability of the right label), in nats; lower is better; None: not measured."""
    calibration_error: float | None
    """Expected calibration error over 15 bins of confidence, 0 to 1; lower is better; None: not measured."""
    evaluation: str
    """Where the figures come from: "cross_validation", "held_out", or "" (too few examples)."""
    evaluation_folds: int
    """Folds of the cross-validation; 0 for a held-out set."""
    evaluated_examples: int
    """How many examples the figures were measured on."""
    method: str
    """The method used, for example "frozen"."""
    head: HeadChoice
    """The head that was chosen."""
    per_class: tuple[ClassReport, ...]
    """One entry a class, in output order. Empty in lists of versions."""
    confusions: tuple[Confusion, ...]
    """The most frequent confusions, most frequent first."""
    warnings: tuple[str, ...]
    """What to know before trusting the version, in sentences."""
    backbone: str
    """The backbone's name on the server that trained the version."""
    encoder_id: str
    """The digest that identifies the encoder."""
    seed: int
    """What every random choice was derived from."""
    trained_time: dt.datetime | None
    """When the version was trained, in UTC."""
    training_duration_s: float
    """How long choosing and fitting the head took, in seconds."""
    reliability: tuple[ReliabilityBin, ...] = field(repr=False)
    """How honest the probabilities are: 15 bins by rising confidence. Empty in lists of versions."""
    novelty: NoveltyReport | None
    """When the version abstains; None where the server does not say."""
    data: DataReport | None = field(repr=False)
    """What the training examples themselves show; None where the server does not say."""
    learning_curve: LearningCurve | None = field(repr=False)
    """How accuracy grows with examples; None where there are too few to tell."""
    feature_map: tuple[MapPoint, ...] = field(repr=False)
    """A sample of at most 1,000 training examples on a plane. Empty in lists of versions."""
    tuning: TuningReport | None = field(default=None, repr=False)
    """What tuning the backbone did; None where it was not tried. Of several tunings, the one that was kept, or the
    last."""
    other_tunings: tuple[TuningReport, ...] = field(default=(), repr=False)
    """The other tunings that "auto" tried, in order. Empty in lists of versions."""
    task: str = "single_label"
    """What the version answers with: "single_label", "multi_label" or "regression"."""
    multi_label: MultiLabelFigures | None = None
    """Further figures of a multi-label version; its accuracy is that of whole sets."""
    regression: RegressionFigures | None = None
    """The figures of a regression; accuracy and the other figures of labels are None."""
    predicted_values: tuple[PredictedValue, ...] = field(default=(), repr=False)
    """A sample of at most 500 evaluated examples of a regression. Empty in lists of versions."""
    accuracy_low: float | None = None
    """The lower end of the 95% interval of the accuracy: how much luck the evaluated examples may be; None: unknown."""
    accuracy_high: float | None = None
    """The upper end of the 95% interval of the accuracy; None: unknown."""
    look_alikes: LookAlikes | None = None
    """What is found if whole groups of inputs that look alike are held out; None where there are no such groups."""
    truncated_examples: int = 0
    """How many training examples are longer than the backbone reads, so that their end was cut off."""
    evaluation_digest: str = ""
    """Equal for versions whose figures were measured on the same examples by the same method: those alone compare. ""
    if that is not known."""
    renewal: Renewal | None = None
    """Why the server made the version by itself; None where somebody asked for it."""
    unlabelled: UnlabelledReport | None = field(default=None, repr=False)
    """What examples without a target brought; None where there are none."""
    advice: tuple[Advice, ...] = field(default=(), repr=False)
    """What would make the version better, most worth doing first. Empty in lists of versions."""
    quotes: Quotes | None = field(default=None, compare=False, repr=False)
    """What the examples are that the report names, for whoever may read them, as `Client.report` joins them; None where
    nobody asked. The stored report quotes nothing."""
    model: str = field(default="", compare=False, repr=False)
    """The model's name, as far as the client knows it."""
    version: int = field(default=0, compare=False, repr=False)
    """The version's number, as far as the client knows it; else 0."""
