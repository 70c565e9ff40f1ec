"""The classifier of scikit-learn: it keeps scikit-learn's conventions, and leaves nothing on the server."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import graft
from graft.sklearn import SCRATCH, GraftClassifier, delete_scratch

SAID = {"bill": "my bill is wrong", "card": "my card was declined", "lock": "the lock is stuck"}
TEXTS = [f"{said} {number}" for number in range(8) for said in SAID.values()]
LABELS = [label for _ in range(8) for label in SAID]
NOWHERE = "127.0.0.1:1"

CHECKS = [
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]
"""The checks of `check_estimator` that fit nothing; the others fit random numbers, which are no texts."""


@pytest.mark.parametrize("name", CHECKS)
def test_it_passes_the_checks_of_scikit_learn_that_are_not_about_arrays_of_numbers(name: str) -> None:
    getattr(estimator_checks, name)("GraftClassifier", GraftClassifier(NOWHERE))


def test_the_checks_on_arrays_of_numbers_are_left_out_because_inputs_are_texts() -> None:
    with pytest.warns(Warning, match="Can't test estimator GraftClassifier which requires input"):
        found = estimator_checks.check_estimator(GraftClassifier(NOWHERE), on_fail="raise")
    assert {it["status"] for it in found} == {"passed"}
    assert is_classifier(GraftClassifier())


def test_a_clone_and_a_pickle_have_the_parameters_and_no_connection() -> None:
    made = GraftClassifier(NOWHERE, model="m", method="frozen", random_state=7)
    for other in (clone(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301
        assert other.get_params() == made.get_params()
    assert repr(GraftClassifier(NOWHERE, model="m")) == "GraftClassifier(model='m', target='127.0.0.1:1')"


@pytest.mark.parametrize(
    ("X", "y", "options", "says"),
    [
        (["a", "b"], ["x"], {}, r"inconsistent numbers of samples: \[2, 1\]"),
        (["a", "b"], ["x", "x"], {}, "at least 2 classes, but y has 1 class only: 'x'"),
        (["a", "b"], ["x", None], {}, "y contains a missing label"),
        (["a", "b"], [0.5, 1.5], {}, "Unknown label type: continuous"),
        (["a", "b"], None, {}, "the target y is None"),
        ([], [], {}, r"0 sample\(s\)"),
        ("hello", ["x"], {}, r"X must be several inputs, not one str; did you mean \[X\]"),
        (scipy.sparse.eye(2).tocsr(), ["x", "y"], {}, "X is a sparse matrix, but must hold texts"),
        (
            pd.DataFrame({"a": ["b"], "c": ["d"]}),
            ["x"],
            {},
            r"one column of inputs, not a DataFrame of several",
        ),
        (["a", "b"], ["x", "y"], {"sample_weight": [1.0]}, r"sample_weight.shape == \(1,\), expected \(2,\)"),
        (
            ["a", "b"],
            ["x", "y"],
            {"sample_weight": [1.0, -1.0]},
            "sample_weight must be finite and not negative",
        ),
        (["a", "b"], ["x", "y"], {"groups": ["g"]}, "groups has 1 values for 2 inputs"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_sent(
    X: Any, y: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        GraftClassifier(NOWHERE).fit(X, y, **options)


def test_an_estimator_that_is_not_fitted_says_so() -> None:
    for ask in (GraftClassifier(NOWHERE).predict, GraftClassifier(NOWHERE).predict_proba):
        with pytest.raises(NotFittedError):
            ask(["a"])
    with pytest.raises(NotFittedError):
        GraftClassifier(NOWHERE).publish("m")


@pytest.fixture
def client(server: Any) -> Iterator[graft.Client]:
    with graft.Client(server.target) as client:
        yield client
        assert scratch(client) == []


def scratch(client: graft.Client) -> list[str]:
    """What is on the server for estimators alone."""
    return [it.name for it in client.models(SCRATCH)]


def stored(server: Any) -> set[Path]:
    """The files of the store, without the log of what was published and deleted."""
    files = {it.relative_to(server.store) for it in server.store.rglob("*") if it.is_file()}
    return {it for it in files if "catalogue" not in it.parts}


def refusing(estimator: Any, X: Any, y: Any) -> float:
    raise RuntimeError("no score")


def lower(X: Any) -> list[str]:
    return [it.lower() for it in X]


def test_fitting_answering_and_cross_validating_leave_nothing_behind(
    server: Any, client: graft.Client
) -> None:
    before = stored(server)
    model = f"sklearn-tests/{uuid.uuid4().hex}"
    weights = np.linspace(0.5, 1.0, len(TEXTS))
    made = GraftClassifier(server.target, method="frozen").fit(np.array(TEXTS), LABELS, weights, groups=None)
    assert made.classes_.tolist() == ["bill", "card", "lock"]
    assert made.predict(pd.DataFrame({"q": TEXTS[:3]})).tolist() == LABELS[:3]
    shares = made.predict_proba(pd.Series(TEXTS))
    assert shares.shape == (24, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert made.score(TEXTS, LABELS) > 0.9
    with pytest.warns(UserWarning, match=r"1 inputs could not be answered.*row 1: .*is empty"):
        np.testing.assert_allclose(made.predict_proba([TEXTS[0], ""])[1], 1 / 3)
    assert scratch(client) == [made.model_]
    again = copy.deepcopy(made)
    del made
    assert again.predict(TEXTS[:1]).tolist() == ["bill"]
    del again
    assert scratch(client) == []

    numbers = [list(SAID).index(it) for it in LABELS]
    published = GraftClassifier(server.target, model=model).fit(TEXTS, numbers)
    assert (published.model_, published.version_) == (model, 1)
    assert published.predict(TEXTS[:3]).tolist() == [0, 1, 2]
    assert cross_val_score(published, TEXTS, numbers, cv=2).shape == (2,)
    with pytest.raises(RuntimeError, match="no score"):
        cross_val_score(published, TEXTS, numbers, cv=2, scoring=refusing, error_score="raise")
    assert scratch(client) == []
    assert [(it.version, it.aliases) for it in client.versions(model)] == [(1, ("live",))]
    client.delete_model(model)
    with pytest.raises(graft.NotFoundError, match="no backbone 'none'"):
        GraftClassifier(server.target, backbone="none").fit(TEXTS, LABELS)
    assert scratch(client) == []
    assert stored(server) - before == set()


@pytest.mark.slow
def test_processes_of_joblib_leave_nothing_behind(server: Any, client: graft.Client) -> None:
    made = GraftClassifier(server.target, model=f"sklearn-tests/{uuid.uuid4().hex}")
    assert cross_val_score(made, TEXTS, LABELS, cv=3, n_jobs=2).mean() > 0.9
    assert scratch(client) == []
    with pytest.raises(RuntimeError, match="no score"):
        cross_val_score(made, TEXTS, LABELS, cv=3, n_jobs=2, scoring=refusing, error_score="raise")
    assert scratch(client) == []
    found = cross_validate(
        made, TEXTS, LABELS, cv=3, n_jobs=2, return_estimator=True, return_train_score=True
    )
    assert scratch(client) == []
    assert found["estimator"][0].predict(TEXTS[:3]).tolist() == LABELS[:3]
    assert len(scratch(client)) == 1
    del found
    assert scratch(client) == []
    steps = make_pipeline(FunctionTransformer(lower), made)
    search = GridSearchCV(steps, {"graftclassifier__random_state": [1, 2]}, cv=2, n_jobs=2).fit(TEXTS, LABELS)
    best = search.best_estimator_[-1]
    assert scratch(client) == [best.model_]
    assert [it for it in client.models() if it.name == made.model] == []
    best.publish()
    assert scratch(client) == []
    assert [(it.version, it.aliases) for it in client.versions(str(made.model))] == [(1, ("live",))]
    assert search.predict(TEXTS[:2]).tolist() == LABELS[:2]


@pytest.mark.slow
def test_a_process_that_ends_takes_its_models_with_it_and_a_pickle_keeps_one(
    server: Any, client: graft.Client, tmp_path: Path
) -> None:
    def run(statements: str) -> str:
        script = f"import pickle\nfrom graft.sklearn import GraftClassifier\n{statements}"
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    fit = f"made = GraftClassifier({server.target!r}).fit({TEXTS!r}, {LABELS!r})\n"
    run(fit)
    assert scratch(client) == []
    path = tmp_path / "made.pickle"
    run(f"{fit}pickle.dump(made, open({str(path)!r}, 'wb'))")
    assert len(scratch(client)) == 1
    assert b"my bill" not in path.read_bytes()
    read = f"made = pickle.load(open({str(path)!r}, 'rb'))\nprint(made.predict([{TEXTS[0]!r}]))"
    assert run(read) == run(read) == "['bill']\n"
    assert delete_scratch(client) == []
    assert len(delete_scratch(client, older_than=dt.timedelta(0))) == 1


def connected(target: str) -> Callable[[], graft.Client]:
    return lambda: graft.Client(target, timeout=30.0)


def test_a_client_of_ones_own_is_used_and_closed(server: Any, client: graft.Client) -> None:
    made = GraftClassifier(NOWHERE, connect=connected(server.target)).fit(TEXTS, LABELS)
    assert made.predict(TEXTS[:1]).tolist() == ["bill"]
    made.close()
    assert scratch(client) == []
    with pytest.raises(NotFittedError):
        made.predict(TEXTS)
