"""What the server says is told at a shell by commands and options, without methods and fields of the contract."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import graft_server
from graft.cli.program import build_parser
from graft.cli.showing.spoken import COMMANDS, spoken
from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2

METHODS = {
    method.name
    for file in (adaptation_pb2, model_pb2, prediction_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
NAMES = re.compile(rf"\b(?:{'|'.join(METHODS - {'Adapt', 'Predict'})})\b")


def messages() -> list[str]:
    """The texts of the server's errors and warnings, with X in place of what is filled in."""
    found = []
    for path in Path(graft_server.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        described = {id(it.value) for it in ast.walk(tree) if isinstance(it, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if id(node) in described:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [it.value if isinstance(it, ast.Constant) else "X" for it in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                found.append(node.value)
    return found


def test_every_method_has_its_command() -> None:
    assert METHODS - COMMANDS.keys() == set()


def test_the_commands_exist() -> None:
    (verbs,) = [it for it in build_parser()._actions if it.dest == "command"]
    assert verbs.choices is not None
    assert {it.strip("'").split()[1] for it in COMMANDS.values()} <= {*verbs.choices}


def test_no_message_of_the_server_reaches_a_shell_with_a_method_or_a_path_of_a_field() -> None:
    named = [it for it in messages() if NAMES.search(it)]
    assert len(named) > 5
    for message in messages():
        told = spoken(message)
        assert not re.search(r"\b(?:upsert|start)\.[a-z]", told), told
        # A path of an object in the store is no message.
        assert not NAMES.search(told) or "/" in told or "graft.v1" in told, told


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        ("upsert.input.text is empty: give a text.", "the text is empty: give a text."),
        ("upsert.input.text_pair.second is empty", "the second text is empty"),
        ("upsert.label_set.labels[3] is 'x'", "a label is 'x'"),
        ("upsert.distribution.labels[0].probability is 2.0", "a label's probability is 2.0"),
        ("examples[7].label is empty", "the label is empty"),
        ("inputs[0].image is empty", "the image is empty"),
        ("start.base_version is 4, but start.task is x", "--base-version is 4, but --task is x"),
        ("start.labels[2].name is empty", "--labels is empty"),
        ("use METHOD_FROZEN or METHOD_AUTO.", "use frozen or auto."),
        (
            "point the alias elsewhere with SetAlias first.",
            "point the alias elsewhere with 'graft promote' first.",
        ),
        (
            "has no alias 'SetAlias'; its id is 'base_version'",
            "has no alias 'SetAlias'; its id is 'base_version'",
        ),
        ("Predict what users Adapt", "Predict what users Adapt"),
        ("use --base-version and model.start", "use --base-version and model.start"),
    ],
)
def test_messages_are_told_in_words(wire: str, told: str) -> None:
    assert spoken(wire) == told
