"""Graft as a classifier of scikit-learn: `pip install 'graft-serve[sklearn]'`.

    from graft.sklearn import GraftClassifier

    scores = cross_val_score(GraftClassifier(), texts, labels)
    classifier = GraftClassifier(model="support/intents").fit(texts, labels)

A server does the work. What it makes in `fit` is for the estimator alone and is deleted with it, unless `model` names
where to publish; a clone never publishes in `fit`. So a cross-validation or a search moves no alias and leaves no
version behind.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import multiprocessing.util
import os
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from graft._client.sync import Client
from graft._records.evaluation.reports import Report
from graft._records.inputs.examples import Example
from graft._records.inputs.shapes import several_inputs
from graft._records.inputs.targets import is_missing, label_of
from graft._records.predicting.predictions import Prediction
from graft._streams.options import FineTuning
from graft._tables.sources import source_of
from graft._transport.targets import default_target
from graft.errors import GraftError, NotFoundError

__all__ = ["SCRATCH", "GraftClassifier", "delete_scratch"]

LOG = logging.getLogger("graft")

SCRATCH: Final = "sklearn-scratch/"
"""How the names of models begin that are for one estimator alone."""
_DELETING_S: Final = 10.0
"""How long a deletion may take, in seconds, before the program goes on."""
_NAMED: Final = 3

Connect = Callable[[], Client]


class GraftClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that a Graft server trains and answers for.

    Inputs are texts, or other inputs of `Client.predict`: content or paths of images and clips, `TextPair`s, or
    features of the backbone as an array of shape (n, d). They come as a list, an array, a Series, or a table with one
    column.

    Attributes:
        classes_: The classes, sorted; the columns of `predict_proba`.
        report_: What the version was trained on, and how good it is by the server's own cross-validation.
        model_: The model's name on the server.
        version_: The version's number.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        model: str | None = None,
        backbone: str = "",
        method: str = "auto",
        fine_tuning: FineTuning | None = None,
        time_budget: float | None = None,
        random_state: Any = 0,
        connect: Connect | None = None,
    ) -> None:
        """Sets the parameters; nothing is connected.

        Args:
            target: The server, as for `Client`; None: what GRAFT_SERVER names, or the one of this machine.
            model: Where `fit` publishes. None: nowhere. What is fitted by a clone is published by `publish` alone.
            backbone: The backbone's name on the server. Empty: the server's default.
            method: "frozen", "partial", "full" or "auto", as for `Client.adapt`.
            fine_tuning: How the backbone is tuned, as for `Client.adapt`.
            time_budget: How long tuning may take, in seconds, as for `Client.adapt`.
            random_state: What every random choice is derived from: an int, a RandomState or None.
            connect: Returns a client, in place of one for `target`: for TLS, tokens and the like. To be sent to other
                processes it must be a function of a module.
        """
        self.target = target
        self.model = model
        self.backbone = backbone
        self.method = method
        self.fine_tuning = fine_tuning
        self.time_budget = time_budget
        self.random_state = random_state
        self.connect = connect

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = False
        tags.non_deterministic = False
        return tags

    def __sklearn_clone__(self) -> Self:
        made: Self = super().__sklearn_clone__()
        made._cloned = True
        if "_from" in self.__dict__:
            made._from = self._from
        return made

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_shares")

    def __getstate__(self) -> dict[str, Any]:
        state = {"_from": os.getpid(), **super().__getstate__()}
        state.pop("_connected", None)
        if "version_" in state:
            state.pop(
                "_examples", None
            )  # a pickle has no inputs, unless it is to be trained where it is read
        return state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Has the server train a version.

        Args:
            X: The inputs.
            y: The class of each.
            sample_weight: The weight of each; None: 1.
            groups: The group of each, which the server's own cross-validation keeps together; None: none.

        Raises:
            GraftError: There is no version.
            ValueError: The arguments do not fit each other, or there are fewer than two classes.
        """
        inputs = _inputs_of(X)
        if y is None:
            raise ValueError("GraftClassifier requires y to be passed, but the target y is None")
        labels = column_or_1d(y, warn=True)
        check_consistent_length(inputs, labels)
        if any(is_missing(it) for it in labels.tolist()):
            raise ValueError(
                "Input y contains a missing label (None, NaN or an empty text): leave such rows out"
            )
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"GraftClassifier needs examples of at least 2 classes, but y has 1 class only: {classes.tolist()[0]!r}"
            )
        names = _names_of(classes)
        weights = _weights_of(sample_weight, len(inputs))
        parts = _groups_of(groups, len(inputs))
        self._examples = [
            Example(value, names[code], weight=weight, group=part)
            for value, code, weight, part in zip(inputs, codes, weights, parts, strict=True)
        ]
        self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._forget()
        if self.model is not None and not getattr(self, "_cloned", False):
            self._take(self.model)
        elif not self._visiting:
            self._take(None)
        self.classes_ = classes
        self._codes = {name: code for code, name in enumerate(names)}
        self._shares = np.bincount(codes, minlength=len(classes)) / len(codes)
        return self

    @property
    def _visiting(self) -> bool:
        """Whether this is in a process that the one it comes from started, as joblib's workers are.

        What it leaves there is freed after the result was sent, or never. So nothing is left: its version is trained
        when it is asked, answers, and is deleted before the answer is returned.
        """
        return bool(self.__dict__.get("_from") == os.getppid())

    def publish(self, model: str | None = None) -> Self:
        """Trains on the examples of `fit` once more, and publishes the version: for what was fitted by a clone.

        Args:
            model: The model's name; None: that of the parameter `model`.

        Raises:
            GraftError: There is no version.
            ValueError: There is no name.
            NotFittedError: `fit` was not called in this process.
        """
        check_is_fitted(self, "_examples")
        if (name := model or self.model) is None:
            raise ValueError("give the name of the model to publish to, as publish('support/intents')")
        self._take(name)
        return self

    def predict(self, X: Any) -> Any:
        """Returns the most probable class of each input, an array of shape (n,)."""
        found = self._answers(X, 1)
        return self.classes_[found.argmax(axis=1)]

    def predict_proba(self, X: Any) -> Any:
        """Returns the calibrated probability of each class, an array of shape (n, classes) in the order of `classes_`.

        Inputs that the server refuses, as empty ones, have the shares of the classes in training; a warning says so.
        """
        found = self._answers(X, 0)
        return found / found.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> Any:
        """Returns the logarithm of `predict_proba`."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).tiny))

    def close(self) -> None:
        """Deletes what was made on the server for this estimator alone, and closes its connection. Fit it again."""
        self._forget()
        self.__dict__.pop("_shares", None)
        if (client := self.__dict__.pop("_connected", None)) is not None:
            client.close()

    def _forget(self) -> None:
        """Deletes the version that is for this estimator alone."""
        for name in ("version_", "model_", "report_"):
            self.__dict__.pop(name, None)
        if (scratch := self.__dict__.pop("_scratch", None)) is not None:
            scratch.delete()

    def _take(self, model: str | None) -> None:
        """Trains a version of a model; of one for this estimator alone, if there is no name."""
        scratch = None if model is not None else _Scratch(self.target, self.connect)
        try:
            result = self._client().adapt(
                scratch.name if scratch is not None else str(model),
                self._examples,
                task="single_label",
                backbone=self.backbone,
                method=self.method,
                fine_tuning=self.fine_tuning,
                time_budget=self.time_budget,
                seed=self._seed,
            )
        except BaseException:
            if scratch is not None:
                scratch.delete()
            raise
        if result.rejected_count:
            told = "; ".join(f"row {it.sequence}: {it.detail}" for it in result.rejected[:_NAMED])
            warnings.warn(f"{result.rejected_count:,} rows were refused: {told}", UserWarning, stacklevel=3)
        self._scratch = scratch
        self.model_, self.version_ = result.model, result.version
        self.report_: Report = result.report

    def _client(self) -> Client:
        if self.connect is None:
            return _client_of(self.target)
        if "_connected" not in self.__dict__:
            self._connected = self.connect()
        client: Client = self._connected
        return client

    def _answers(self, X: Any, top: int) -> Any:
        """The probabilities of the classes, shape (n, classes); 0 for all but the `top` first, if not 0."""
        check_is_fitted(self)
        inputs = _inputs_of(X)
        if "version_" in self.__dict__:
            return self._answered(inputs, top)
        self._take(None)
        try:
            return self._answered(inputs, top)
        finally:
            if self._visiting:
                self._forget()

    def _answered(self, inputs: Sequence[Any], top: int) -> Any:
        found = np.zeros((len(inputs), len(self.classes_)))
        refused: list[tuple[int, Prediction]] = []
        answers = self._client().predict_stream(
            self.model_, inputs, version=self.version_, top_k=top or len(self.classes_)
        )
        for row, answer in enumerate(answers):
            if answer.error is not None:
                refused.append((row, answer))
                found[row] = self._shares
            for score in answer.scores:
                found[row, self._codes[score.label]] = score.probability
        if refused:
            told = "; ".join(f"row {row}: {it.error}" for row, it in refused[:_NAMED])
            warnings.warn(
                f"{len(refused):,} inputs could not be answered, and have the classes' shares in training: {told}",
                UserWarning,
                stacklevel=4,
            )
        return found


def delete_scratch(client: Client, *, older_than: dt.timedelta = dt.timedelta(days=1)) -> list[str]:
    """Deletes what estimators left behind whose process was killed, or that were pickled and not closed.

    Args:
        client: A client of the server.
        older_than: Only what is older.

    Returns:
        The names of the deleted models.
    """
    now = dt.datetime.now(tz=dt.UTC)
    old = [
        it.name
        for it in client.models(SCRATCH)
        if it.create_time is not None and now - it.create_time >= older_than
    ]
    for name in old:
        with contextlib.suppress(NotFoundError):
            client.delete_model(name)
    return old


class _Scratch:
    """A model for one estimator, which is deleted when nothing refers to this any more, or the process ends well.

    A pickle keeps the model: it stays until `delete` is called.
    """

    def __init__(self, target: str | None, connect: Connect | None, name: str = "") -> None:
        self.name = name or f"{SCRATCH}{uuid.uuid4().hex}"
        self._target = target
        self._connect = connect
        self._delete = weakref.finalize(self, _delete_beside, target, connect, self.name)
        self._delete.atexit = False  # `_delete_left` does it
        _KNOWN[self.name] = self
        _LEFT[self.name] = (target, connect)

    def __copy__(self) -> _Scratch:
        return self

    def __deepcopy__(self, _: Any) -> _Scratch:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        self.keep()
        return _unpickled, (self._target, self._connect, self.name)

    def keep(self) -> None:
        """Has the model stay when this goes."""
        self._delete.detach()
        _LEFT.pop(self.name, None)

    def delete(self) -> None:
        """Deletes the model at once."""
        self._delete.detach()
        _delete(self._target, self._connect, self.name)


def _unpickled(target: str | None, connect: Connect | None, name: str) -> _Scratch:
    found = _KNOWN.get(name)
    if found is None:
        found = _Scratch(target, connect, name)
        found.keep()
    return found


_KNOWN: weakref.WeakValueDictionary[str, _Scratch] = weakref.WeakValueDictionary()
_LEFT: dict[str, tuple[str | None, Connect | None]] = {}
"""The models that are to be deleted when the process ends."""


def _delete_left() -> None:
    for name, (target, connect) in list(_LEFT.items()):
        _delete(target, connect, name)


multiprocessing.util.Finalize(None, _delete_left, exitpriority=100)


def _delete_beside(target: str | None, connect: Connect | None, name: str) -> None:
    """Deletes a model in a thread, and waits for that: what runs here may hold locks of the client."""
    thread = threading.Thread(target=_delete, args=(target, connect, name), name="graft-sklearn-delete")
    try:
        thread.start()
    except RuntimeError:  # the interpreter ends
        _delete(target, connect, name)
    else:
        thread.join(_DELETING_S)


def _delete(target: str | None, connect: Connect | None, name: str) -> None:
    _LEFT.pop(name, None)
    try:
        with _client_for(target, connect) as client:
            for adaptation in client.adaptations(name, timeout=_DELETING_S):
                if adaptation.state == "open":
                    client.cancel(name, adaptation.adaptation_id, timeout=_DELETING_S)
            client.delete_model(name, timeout=_DELETING_S)
    except NotFoundError:
        pass
    except GraftError as error:
        LOG.warning(
            "the model %s could not be deleted; graft.sklearn.delete_scratch does it: %s", name, error
        )


@contextlib.contextmanager
def _client_for(target: str | None, connect: Connect | None) -> Iterator[Client]:
    if connect is None:
        yield _client_of(target)
    else:
        with connect() as client:
            yield client


_CLIENTS: dict[tuple[int, str], Client] = {}


def _client_of(target: str | None) -> Client:
    """The client for a server, one for each process."""
    key = os.getpid(), target or default_target()
    return _CLIENTS.get(key) or _CLIENTS.setdefault(key, Client(key[1]))


def _inputs_of(X: Any) -> Sequence[Any]:
    """The inputs in their order.

    Raises:
        TypeError: It is one text, or has a shape that is not read.
        ValueError: There are none, or it is a table with several columns.
    """
    if isinstance(X, str | bytes):
        raise TypeError(f"X must be several inputs, not one {type(X).__name__}; did you mean [X]?")
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError("X is a sparse matrix, but must hold texts, or features as a dense array")
    if (source := source_of(X, named=False)) is not None:
        if not (column := getattr(source, "only", "")):
            raise ValueError(
                f"X must be one column of inputs, not a {type(X).__name__} of several: give X['text']"
            )
        rows = source.rows()
        found = [getattr(row, "values", {})[column] for row in rows]
    else:
        found = list(several_inputs(X))
    if not found:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required by GraftClassifier.")
    return found


def _names_of(classes: Any) -> list[str]:
    """The classes' names on the server: their texts, or their numbers where two have the same text."""
    names = [(label_of(it) or "").strip() for it in classes.tolist()]
    if len(set(names)) < len(names):
        return [f"class {code}" for code in range(len(names))]
    return names


def _weights_of(weights: Any, count: int) -> Iterable[float | None]:
    if weights is None:
        return [None] * count
    found = np.asarray(weights, dtype=np.float64)
    if found.shape != (count,):
        raise ValueError(f"sample_weight.shape == {found.shape}, expected {(count,)}!")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("sample_weight must be finite and not negative")
    return found.tolist()  # type: ignore[no-any-return]


def _groups_of(groups: Any, count: int) -> Iterable[str]:
    if groups is None:
        return [""] * count
    found = list(groups)
    if len(found) != count:
        raise ValueError(f"groups has {len(found):,} values for {count:,} inputs")
    return [label_of(it) or "" for it in found]
