"""What the server says, in the words of the command line: commands and options in place of methods and fields.

The server's messages are for callers of every language, and name what the contract names.
"""

from __future__ import annotations

import re
from typing import Final

COMMANDS: Final = {
    "Adapt": "'graft adapt'",
    "GetAdaptation": "'graft adaptations MODEL'",
    "ListAdaptations": "'graft adaptations MODEL'",
    "WatchAdaptation": "'graft watch'",
    "CancelAdaptation": "'graft cancel'",
    "UpdateAdaptation": "'graft adaptations MODEL'",
    "Predict": "'graft predict'",
    "PredictStream": "'graft predict'",
    "ListModels": "'graft models'",
    "GetModel": "'graft models'",
    "UpdateModel": "'graft models'",
    "UpdateVersion": "'graft versions'",
    "ListVersions": "'graft versions MODEL'",
    "GetVersion": "'graft report MODEL'",
    "SetAlias": "'graft promote'",
    "DeleteAlias": "'graft alias'",
    "DeleteVersion": "'graft delete'",
    "DeleteModel": "'graft delete'",
    "EvaluateModel": "'graft evaluate'",
    "SuggestExamples": "'graft next'",
    "ExportModel": "'graft export'",
    "ListExamples": "'graft examples'",
    "DeleteExamples": "'graft forget'",
    "ListBackbones": "'graft backbones'",
}
"""The command that does what a method of the contract does."""
_WORDS: Final = frozenset({"Adapt", "Predict"})
"""Methods whose names are words, too: they stay."""
_OPTIONS: Final = {
    "publish.every_examples": "--publish-every",
    "publish.every": "--publish-seconds",
    "publish.promote": "--no-promote",
    "fine_tuning.unfrozen_layers": "--layers",
    "fine_tuning.epochs": "--epochs",
    "fine_tuning.learning_rate": "--learning-rate",
    "fine_tuning": "the tuning options",
    "time_budget": "--time-budget",
    "adaptation_id": "--adaptation-id",
    "writer_id": "--writer-id",
    "base_version": "--base-version",
    "base_alias": "--base-version",
    "closed_labels": "--closed-labels",
    "labels": "--labels",
    "backbone": "--backbone",
    "metadata": "--metadata",
    "method": "--method",
    "model": "the model's name",
    "seed": "--seed",
    "task": "--task",
}
"""The option that sets a field of AdaptStart."""
_CONTENT: Final = {
    "text_pair.first": "the first text",
    "text_pair.second": "the second text",
    "text": "the text",
    "image": "the image",
    "audio": "the clip",
    "features": "the vector",
}
_FIELDS: Final = {
    **{f"input.{name}": words for name, words in _CONTENT.items()},
    "input": "the input",
    "label_set.labels": "the set of labels",
    "label_set": "the set of labels",
    "distribution.labels": "the distribution",
    "distribution": "the distribution",
    "label": "the label",
    "value": "the value",
    "weight": "the weight",
    "subject": "the subject",
    "origin": "the origin",
    "group": "the group",
    "split": "the split",
    "id": "the id",
}
"""What a field of an example is called."""


def _any_of(names: object) -> str:
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))  # type: ignore[call-overload]


_METHOD: Final = re.compile(rf"\b(?:{_any_of(COMMANDS.keys() - _WORDS)})\b(?!')")
_EXAMPLE: Final = re.compile(
    rf"\b(?:upsert|examples\[\d+\])\.({_any_of(_FIELDS)})((?:\[\d+\])?(?:\.\w+)?)(?!\w)"
)
_INPUT: Final = re.compile(rf"\binputs\[(\d+)\](?:\.({_any_of(_CONTENT)}))?(?!\w)")
_START: Final = re.compile(rf"\bstart\.({_any_of(_OPTIONS)})(?:\[\d+\](?:\.\w+)?)?(?!\w)")
_BARE: Final = re.compile(rf"(?<![-\w.'])({_any_of({it for it in _OPTIONS if '_' in it})})(?![\w'])")
_TASK: Final = re.compile(r"\bTASK_(SINGLE_LABEL|MULTI_LABEL|REGRESSION)\b")
_ENUM: Final = re.compile(r"\bMETHOD_(AUTO|FROZEN|PARTIAL|FULL)\b")
_PHRASES: Final = (
    ("send some, then commit again", "add some, then try again"),
    ("publish it through Adapt", "'graft adapt' publishes one"),
    (
        "send examples without targets, or set stored for the unlabelled ones that are stored",
        "give inputs with --from, or leave it away for the unlabelled ones that are stored",
    ),
    ("and none was sent: send candidates", "and none was given: name inputs with --from"),
    ("top_k", "--top-k"),
    ("from_event", "--from-event"),
    ("declare labels in start", "declare labels with --labels"),
    ("labels of start", "--labels"),
    ("delete_id", "the id to delete"),
)


def spoken(text: str) -> str:
    """A message of the server, in the words of the command line."""
    for wire, words in _PHRASES:
        text = text.replace(wire, words)
    text = _EXAMPLE.sub(lambda it: _part(it[1], it[2]), text)
    text = _INPUT.sub(lambda it: _CONTENT.get(it[2] or "", "the input"), text)
    text = _START.sub(lambda it: _OPTIONS[it[1]], text)
    text = _BARE.sub(lambda it: _OPTIONS[it[1]], text)
    text = _TASK.sub(lambda it: f"--task {it[1].lower().replace('_', '-')}", text)
    text = _ENUM.sub(lambda it: it[1].lower(), text)
    return _METHOD.sub(lambda it: COMMANDS[it[0]], text)


def _part(field: str, rest: str) -> str:
    """The words for a field, or for a label within a set of them."""
    if rest and field.endswith("labels"):
        return "a label's probability" if rest.endswith("probability") else "a label"
    return _FIELDS[field]
