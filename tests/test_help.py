"""What `--help` of both commands says: defaults in words, metavars that fit their values, and no names of the wire."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graft.cli import program
from graft.cli.verbs import SUMMARIES
from graft.v1 import adaptation_pb2, model_pb2, prediction_pb2
from graft_server import cli

RPCS = {
    method.name
    for file in (adaptation_pb2, model_pb2, prediction_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.name.isalpha() or method.name[1:].lower() != method.name[1:]  # "Adapt" is a word, too
}
NUMBERS = {"N", "NUMBER", "SECONDS", "VERSION"}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for of_verb in action.choices.values():
                yield from parsers(of_verb)


PARSERS = [*parsers(program.build_parser()), *parsers(cli.build_parser())]
OPTIONS = [
    pytest.param(action, id=f"{parser.prog} {action.option_strings[0]}")
    for parser in PARSERS
    for action in parser._actions
    if action.option_strings and action.nargs != 0
]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_with_a_value_says_its_default(option: argparse.Action) -> None:
    assert option.help is not None
    assert re.search(r"; default: \S", option.help), option.help


@pytest.mark.parametrize("option", OPTIONS)
def test_what_stands_for_a_value_fits_it(option: argparse.Action) -> None:
    if option.choices is not None:
        return
    assert isinstance(option.metavar, str), option.option_strings
    assert option.metavar.upper() == option.metavar or "|" in option.metavar
    if option.type in (int, float) or getattr(option.type, "__name__", "") == "positive":
        assert option.metavar in NUMBERS
    if "seconds" in option.option_strings[0]:
        assert option.metavar == "SECONDS"


@pytest.mark.parametrize("parser", PARSERS, ids=lambda it: it.prog)
def test_no_help_ends_in_a_bare_parenthesis_or_names_a_method_of_the_wire(
    parser: argparse.ArgumentParser,
) -> None:
    for action in parser._actions:
        assert not re.search(r"\([^()]*\)$", action.help or ""), action.help
    words = set(re.findall(r"\w+", parser.format_help()))
    assert not words & RPCS


@pytest.mark.parametrize("parser", PARSERS, ids=lambda it: it.prog)
def test_every_argument_is_described(parser: argparse.ArgumentParser) -> None:
    assert all(it.help for it in parser._actions if not isinstance(it, argparse._SubParsersAction))
    assert parser.description


@pytest.mark.parametrize("verb", [it.prog.split()[1] for it in PARSERS if it.prog.startswith("graft ")])
def test_the_server_is_named_before_a_command_or_after_it(verb: str) -> None:
    parser = program.build_parser()
    (of_verb,) = [it for it in parsers(parser) if it.prog == f"graft {verb}"]
    needed = [
        next(iter(it.choices)) if it.choices else "1"
        for it in of_verb._actions
        if not it.option_strings and it.nargs not in ("?", "*")
    ]
    before = ["--server", "a:1", "--timeout", "5", "--json"]
    args = parser.parse_args([*before, verb, *needed])
    assert (args.server, args.timeout, args.json) == ("a:1", 5.0, True)
    args = parser.parse_args([verb, *needed, *before])
    assert (args.server, args.timeout, args.json) == ("a:1", 5.0, True)
    args = parser.parse_args([*before, verb, *needed, "--server", "b:2", "--timeout", "6"])
    assert (args.server, args.timeout, args.json) == ("b:2", 6.0, True)
    args = parser.parse_args([verb, *needed])
    assert (args.timeout, args.json) == (60.0, False)


def test_help_knows_every_verb_without_importing_it() -> None:
    (verbs,) = [it for it in program.build_parser()._actions if isinstance(it, argparse._SubParsersAction)]
    said = {it.dest: it.help for it in verbs._choices_actions}
    assert said == SUMMARIES
    folder = Path(program.__file__).parent / "verbs"
    assert {it.stem for it in folder.glob("*.py")} - {"__init__"} == SUMMARIES.keys()


def test_help_imports_neither_grpc_s_client_nor_rich_nor_the_verbs() -> None:
    code = "import sys; from graft.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(*sorted(sys.modules), file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stderr.split())
    assert not {"rich", "graft._client.sync", "graft._tables", "graft.cli.verbs.adapt"} & loaded
    assert "graft.cli.verbs" in loaded
