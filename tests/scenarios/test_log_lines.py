"""What the log says of a server's life: one line each for what a person wants to know afterwards, and no more."""

from __future__ import annotations

import re

import pytest

from graft.v1 import adaptation_pb2, model_pb2, types_pb2

LINE = re.compile(r"[0-9-]{10} [0-9:,]{12} (INFO|WARNING) graft_server\.[a-z_.]+: ([a-z ]+): (.*)\n")
FIELD = re.compile(r'([a-z0-9_]+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)')
MODEL, OTHER, GONE = "tests/told", "tests/other", "tests/gone"
IDS = {"adaptation", "commit"}
VARYING = {"seconds", "seconds_up", "memory_mb", "accuracy", "idle_seconds"}
"""Fields whose values differ from run to run; that they are there is checked."""


def shown(name: str, value: str) -> str:
    return "*" if name in VARYING and re.fullmatch(r"[0-9.]+", value) else value


def told(log: list[str]) -> list[tuple[str, str, dict[str, str]]]:
    """The level, the name and the fields of each line; every line of the log must be one."""
    found = []
    for text in log:
        matched = LINE.fullmatch(text)
        assert matched, text
        level, event, rest = matched.groups()
        fields = dict(FIELD.findall(rest))
        assert FIELD.sub("", rest) == "", text
        found.append((level, event, {name: shown(name, it) for name, it in fields.items()}))
    return found


def of_models(log: list[str]) -> list[tuple[str, str, dict[str, str]]]:
    """The lines between the start and the end, without the ids of adaptations that clients made up."""
    lines = [it for it in told(log) if "model" in it[2]]
    assert all(IDS & it[2].keys() for it in lines if it[1].startswith(("adaptation", "commit", "publi")))
    return [(level, event, {k: v for k, v in it.items() if k not in IDS}) for level, event, it in lines]


@pytest.fixture
def secret_rows(few: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"confidential {text}", f"private-{label}") for text, label in few]


@pytest.mark.slow
def test_a_life_is_told_in_lines(serve, connect, few, secret_rows):
    first = serve()
    wire = connect(first)
    wire.publish(MODEL, secret_rows, adaptation_id="one")
    wire.publish(MODEL, secret_rows[:-2], adaptation_id="two", base_version=1)
    for text, _ in few:
        wire.predict(MODEL, [text, "confidential question"])
    alias = model_pb2.SetAliasRequest(model=MODEL, alias="live", version=1)
    wire.model.SetAlias(alias, timeout=60)
    wire.publish(OTHER, [("confidential", "private-label")] * 3, adaptation_id="three")
    wire.model.SetAlias(alias, timeout=60)  # it points there already
    wire.publish(MODEL, secret_rows, adaptation_id="five")
    wire.publish(OTHER, few, adaptation_id="six", method=types_pb2.METHOD_PARTIAL)
    wire.publish(GONE, few[:4], adaptation_id="four")
    call = wire.adapt(model=GONE, adaptation_id="open")
    call.next("started")
    for _ in range(2):
        cancel = adaptation_pb2.CancelAdaptationRequest(model=GONE, adaptation_id="open")
        wire.adaptation.CancelAdaptation(cancel, timeout=60)
    wire.model.DeleteVersion(model_pb2.DeleteVersionRequest(model=MODEL, version=2), timeout=60)
    erase = model_pb2.DeleteExamplesRequest(model=GONE, ids=["private-id"], subject="private-subject")
    wire.model.DeleteExamples(erase, timeout=60)
    wire.model.DeleteModel(model_pb2.DeleteModelRequest(model=GONE), timeout=60)
    wire.fails(wire.model.DeleteModel, model_pb2.DeleteModelRequest(model=GONE))
    wire.close()
    assert first.stop() == 0

    by = {"by": "127.0.0.1"}
    started = {"backbone": "minilm", "task": "single_label", "method": "auto"}
    accepted = {"closes": "yes"}
    published = {"accuracy": "*", "classes": "2", "seconds": "*", "live": "yes", "method": "frozen"}
    nothing = '"not measured"'
    untuned = {"method": "partial", "ended": "too_few", "measured": "0", "seconds": "*"}
    untuned |= {"frozen_accuracy": nothing, "tuned_accuracy": nothing}
    stayed = {**published, "live": "no", "live_stays": "1", "held_back": "pinned"}
    unmeasured = {**published, "accuracy": nothing}
    assert of_models(first.log) == [
        ("INFO", "adaptation started", {"model": MODEL, **started}),
        ("INFO", "commit accepted", {"model": MODEL, "changes": "12", **accepted}),
        ("INFO", "version published", {"model": MODEL, "version": "1", "examples": "12", **published}),
        ("INFO", "adaptation started", {"model": MODEL, **started, "base_version": "1"}),
        ("INFO", "commit accepted", {"model": MODEL, "changes": "10", **accepted}),
        ("INFO", "version published", {"model": MODEL, "version": "2", "examples": "22", **published}),
        (
            "INFO",
            "alias moved",
            {"model": MODEL, "alias": "live", "version": "1", "before": "2", "pinned": "yes", **by},
        ),
        ("INFO", "adaptation started", {"model": OTHER, **started}),
        ("INFO", "commit accepted", {"model": OTHER, "changes": "3", **accepted}),
        (
            "WARNING",
            "publication failed",
            {
                "model": OTHER,
                "seconds": "*",
                "reason": "TOO_FEW_CLASSES",
                "detail": "\"1 of the classes ('…') has training examples: at least 2 are needed. There are 3 training "
                "examples that can be used. Of the examples that came in: 3 with a label, by label "
                "'…' (3).\"",
            },
        ),
        ("INFO", "adaptation started", {"model": MODEL, **started}),
        ("INFO", "commit accepted", {"model": MODEL, "changes": "12", **accepted}),
        ("INFO", "version published", {"model": MODEL, "version": "3", "examples": "12", **stayed}),
        ("INFO", "adaptation started", {"model": OTHER, **started, "method": "partial"}),
        ("INFO", "commit accepted", {"model": OTHER, "changes": "12", **accepted}),
        ("INFO", "tuning rejected", {"model": OTHER, **untuned}),
        ("INFO", "version published", {"model": OTHER, "version": "1", "examples": "12", **published}),
        ("INFO", "adaptation started", {"model": GONE, **started}),
        ("INFO", "commit accepted", {"model": GONE, "changes": "4", **accepted}),
        ("INFO", "version published", {"model": GONE, "version": "1", "examples": "4", **unmeasured}),
        ("INFO", "adaptation started", {"model": GONE, **started}),
        ("INFO", "adaptation cancelled", {"model": GONE, "unfinished": "0", **by}),
        ("INFO", "version deleted", {"model": MODEL, "version": "2", **by}),
        (
            "INFO",
            "examples erased",
            {"model": GONE, "examples": "0", "named_ids": "1", "of_a_subject": "yes", **by},
        ),
        ("INFO", "model deleted", {"model": GONE, "versions": "1", **by}),
    ]
    assert "confidential" not in "".join(first.log)
    assert "private" not in "".join(first.log)

    second = serve()
    assert second.stop() == 0
    for server, models in ((first, "0"), (second, "2")):
        loaded, start, *_, draining, ended = told(server.log)
        assert loaded[1] == "backbone loaded"
        assert loaded[2].items() >= {"backbone": "minilm", "device": "cpu", "precision": "fp32"}.items()
        assert start[1] == "server started"
        encoder = loaded[2]["encoder"]
        assert (
            start[2].items() >= {"backbones": f"minilm:{encoder}", "devices": "cpu", "models": models}.items()
        )
        assert start[2]["store"].strip('"') == str(server.store)
        assert start[2]["listening"] == server.target
        assert start[2].keys() >= {"version", "runtime", "cores", "cache", "seconds"}
        assert (draining[1], draining[2].keys()) == ("server draining", {"calls", "at_work", "commits"})
        assert (ended[1], ended[2].keys()) == ("server ended", {"calls", "given_up", "seconds_up"})
        assert ended[2]["given_up"] == "0"
    assert len(told(second.log)) == 4
