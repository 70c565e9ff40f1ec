"""Bundles against the server, on the same inputs: the same answers, or the same reason why there is none."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import graft

STRANGE, LONG = "我的卡在哪里 我的卡在哪里", "hello " * 700
WORDS = ("lock", "bill")


def picture(label: str, seed: int, size: tuple[int, int] = (40, 50)) -> bytes:
    values = np.random.default_rng(seed).integers(0, 120, (*size, 3))
    values[:, :, WORDS.index(label)] += 130
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def sound(label: str, seed: int, seconds: float = 0.6) -> bytes:
    times = np.arange(int(16_000 * seconds)) / 16_000
    noise = np.random.default_rng(seed).normal(0, 0.01, len(times))
    return clip(0.3 * np.sin(2 * np.pi * (150 if label == "lock" else 4_000) * times) + noise)


def clip(samples: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return file.getvalue()


class Frame:
    """What data frames have in common."""

    columns = ("text", "id")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.fixture(scope="module")
def client(serving_many: Any, media_checkpoints: Path) -> Iterator[graft.Client]:
    """A client of a server that reads texts, images and clips."""
    backbones = {name: media_checkpoints / name for name in ("resnet", "whisper")}
    with serving_many(backbones) as wire, graft.Client(wire.target) as client:
        yield client


Exported = Callable[..., tuple[str, ModuleType]]


@pytest.fixture
def exported(client: graft.Client, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exported:
    """Adapts a model and exports it: its name, and the runner of its bundle."""

    def export(rows: list[Any], **options: Any) -> tuple[str, ModuleType]:
        client.adapt(model, rows, **options)
        client.export(model, tmp_path / "bundle")
        monkeypatch.syspath_prepend(str(tmp_path / "bundle"))
        for name in ("images", "audio"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        spec = importlib.util.spec_from_file_location("predict", tmp_path / "bundle" / "predict.py")
        assert spec is not None
        assert spec.loader is not None
        runner = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runner)
        return model, runner

    return export


def texts(count: int = 20) -> list[tuple[str, str]]:
    kinds = (("the lock is stuck", "lock"), ("my bill is wrong", "bill"))
    return [(f"{text} {n}", label) for n in range(count) for text, label in kinds]


def same(served: graft.Predictions, bundled: list[Any]) -> None:
    """Compares answers one by one: of one label, several labels, or a value; or the reason why there is none."""
    for one, other in zip(served, bundled, strict=True):
        if one.error is not None:
            assert (one.error.reason, one.error.message) == (other.reason, other.error)
            continue
        assert other.novelty == pytest.approx(one.novelty, abs=0.02)
        assert (other.abstained, other.truncated) == (one.abstained, one.truncated)
        if one.value is not None:
            assert (other.value, other.low, other.high) == pytest.approx(
                (one.value, one.low, one.high), abs=1e-2
            )
            continue
        labels = getattr(other, "labels", None)
        assert (tuple(labels) if labels is not None else (other.label,)) == one.labels
        assert dict(other.scores) == pytest.approx({it.label: it.probability for it in one.scores}, abs=2e-3)


def reasons(served: graft.Predictions) -> list[str]:
    return [it.error.reason if it.error else "" for it in served]


def test_texts_pairs_files_and_features_of_others_are_answered_or_refused_alike(
    client: graft.Client, exported: Exported, tmp_path: Path
) -> None:
    model, runner = exported(texts())
    (tmp_path / "a.png").write_bytes(picture("lock", 1))
    inputs = [
        "the lock is stuck",
        np.str_("my bill is wrong"),
        graft.TextPair("the lock", "is stuck"),
        STRANGE,
        LONG,
        "a\0b",
        "",
        " \n\u2003",
        "a" * ((1 << 20) + 1),
        graft.TextPair("", "b"),
        graft.TextPair("a", " "),
        picture("lock", 1),
        tmp_path / "a.png",
        sound("lock", 1),
        np.array([], np.float32),
        np.ones(384, np.float32),
        np.ones(3, np.float32),
    ]
    served = client.predict(model, inputs)
    same(served, runner.predict(inputs))
    assert [it.abstained for it in served[:4]] == [False, False, served[2].abstained, True]
    assert served[4].truncated
    assert reasons(served)[6:15] == [
        *("INPUT_EMPTY", "INPUT_EMPTY", "INPUT_TOO_LONG", "INPUT_EMPTY", "INPUT_EMPTY"),
        *("INPUT_WRONG_MODALITY", "INPUT_WRONG_MODALITY", "INPUT_WRONG_MODALITY", "INPUT_EMPTY"),
    ]
    for given in (
        "the lock is stuck",
        np.array(["the lock is stuck", ""]),
        np.array(["the lock is stuck", "my bill"], object),
        np.array("my bill"),
        graft.TextPair("a", "b"),
        ("the lock", "the bill"),
        (it for it in ()),
        [],
        np.array([]),
        np.array([], str),
    ):
        values = list(given) if hasattr(given, "__next__") else given
        same(client.predict(model, values), runner.predict(values))
    assert len(runner.predict(("the lock", "the bill"))) == 2
    assert len(runner.predict([("the lock", "the bill")])) == 1


def test_features_of_the_backbone_are_answered_or_refused_alike(
    client: graft.Client, exported: Exported
) -> None:
    known = client.adapt("tests/known", texts()).model
    features = client.predict(known, [text for text, _ in texts()], include_features=True)
    rows = [np.array(it.features, np.float32) for it in features]
    model, runner = exported([(row, label) for row, (_, label) in zip(rows, texts(), strict=True)])
    inputs = [
        *rows[:3],
        3 * rows[0],
        rows[0].astype(np.float64),
        np.arange(384),
        np.ones(3, np.float32),
        np.zeros(384),
        np.full(384, np.nan, np.float32),
        np.array([np.inf] * 384),
        "the lock is stuck",
    ]
    served = client.predict(model, inputs)
    same(served, runner.predict(inputs))
    assert reasons(served) == [*[""] * 6, "FEATURES_DIMENSION", *["FEATURES_INVALID"] * 3, ""]
    same(client.predict(model, np.stack(rows[:4])), runner.predict(np.stack(rows[:4])))
    same(client.predict(model, rows[0]), runner.predict(rows[0]))


@pytest.mark.parametrize(
    "reads",
    [
        ("resnet", picture, [picture("lock", 1)[:60], picture("lock", 3, (2, 900)), sound("lock", 1)]),
        (
            "whisper",
            sound,
            [b"RIFF\0\0\0\0WAVE", clip(np.zeros(0)), picture("lock", 1), clip(np.zeros(16_000))],
        ),
    ],
)
def test_files_are_answered_or_refused_alike(
    client: graft.Client, exported: Exported, tmp_path: Path, reads: tuple[str, Any, list[bytes]]
) -> None:
    backbone, made, bad = reads
    model, runner = exported(
        [(made(label, seed), label) for seed in range(10) for label in WORDS], backbone=backbone
    )
    (tmp_path / "file").write_bytes(made("bill", 50))
    longest = [sound("lock", 7, 31.0)] if backbone == "whisper" else []
    inputs = [made("lock", 40), tmp_path / "file", *bad, *longest, graft.TextPair("a", "b"), np.ones(7)]
    served = client.predict(model, inputs)
    same(served, runner.predict(inputs))
    assert reasons(served)[:2] == ["", ""]
    assert "INPUT_WRONG_MODALITY" in reasons(served)
    assert [it.truncated for it in served].count(True) == len(longest)
    same(client.predict(model, tmp_path / "file"), runner.predict(str(tmp_path / "file")))
    same(client.predict(model, made("lock", 40)), runner.predict(made("lock", 40)))


@pytest.mark.parametrize("targets", [({"lock"}, {"bill", "lock"}), (3.5, 40.0)])
def test_answers_of_other_tasks_are_marked_alike(
    client: graft.Client, exported: Exported, targets: tuple[Any, Any]
) -> None:
    rows = [(text, targets[label == "bill"]) for text, label in texts()]
    model, runner = exported(rows)
    inputs = ["the lock is stuck", STRANGE, LONG, "", "my bill is wrong"]
    served = client.predict(model, inputs)
    same(served, runner.predict(inputs))
    assert (served[1].abstained, served[2].truncated) == (True, True)


@pytest.fixture(scope="module")
def text_runner(client: graft.Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    model = client.adapt("tests/text-runner", texts()).model
    folder = tmp_path_factory.mktemp("bundle")
    client.export(model, folder)
    return model, folder


def test_what_is_no_input_is_an_error_in_both(client: graft.Client, text_runner: tuple[str, Path]) -> None:
    model, folder = text_runner
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    for given in (
        {"text": "hello"},
        Frame(),
        {"hello"},
        io.StringIO("hello\n"),
        7,
        None,
        np.array([["a", "b"]]),
        np.zeros((2, 2, 2)),
        ["hello", 7],
        [[0.5, 1.5]],
        [np.array(["a", "b"])],
        [np.array([True])],
        ["hello", "\ud800"],
        [b"hello"],
        [b""],
        bytearray(b"hello"),
        Path("/nowhere/a.png"),
        Path("/"),
    ):
        with pytest.raises((TypeError, ValueError)) as of_client:
            client.predict(model, given)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)) as of_runner:
            runner.predict(given)
        assert type(of_client.value) is type(of_runner.value)
        assert str(of_client.value)[:35] == str(of_runner.value)[:35]
    for missing in (None, float("nan")):
        alone = client.predict(model, ["hello", missing])[1].error
        refused = runner.predict(["hello", missing])[1]
        assert alone is not None
        assert "is empty: give a text with something in it" in str(alone)
        assert "is empty: give a text with something in it" in refused.error
    # Rows with several columns are what the client takes apart; a runner wants the column.
    for rows in (np.array([("hello", 1)], [("text", "U9"), ("id", int)]), [{"text": "hello"}]):
        assert client.predict(model, rows)[0].error is None
        with pytest.raises(TypeError):
            runner.predict(rows)


def test_the_runners_lines_are_those_of_the_command(
    client: graft.Client, text_runner: tuple[str, Path]
) -> None:
    model, folder = text_runner
    asked = ["the lock is stuck", "", STRANGE, LONG, "two\nlines and\ta tab"]

    def lines(*command: str) -> tuple[list[list[str]], int]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return [it.split("\t") for it in done.stdout.splitlines()], done.returncode

    command = (sys.executable, "-m", "graft.cli", "predict", model, "--server", client.target)
    of_command, code = lines(*command, *asked)
    of_runner, code_of_runner = lines(sys.executable, "-I", str(folder / "predict.py"), *asked)
    assert (code, code_of_runner) == (1, 1)  # one of them is empty
    assert [(it[0], it[2]) for it in of_runner] == [(it[0], it[2]) for it in of_command]
    assert of_runner[4][2] == r"two\nlines and\ta tab"
    assert [it[3][:9] for it in of_runner[1:3]] == ["error: th", "abstained"]
    assert "truncated: the end was cut off" in of_runner[3][3]
    assert of_runner[1] == of_command[1]
    assert lines(sys.executable, str(folder / "predict.py"), "", " ")[1] == lines(*command, "", " ")[1] == 1
