"""Listing and erasing examples by the client and the command line, against a live server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import graft
from graft import cli


@pytest.fixture
def taught(server: Any, model: str, few: list[tuple[str, str]]) -> str:
    """A model of which one example is somebody's."""
    theirs = graft.Example("my own lock is stuck", "lock", id="theirs", subject="zebulon", group="g")
    with graft.Client(server.target) as client:
        client.adapt(model, [*few, theirs], adaptation_id="a")
    return model


def test_stored_examples_are_listed_and_erased(server, taught, few):
    with graft.Client(server.target) as client:
        assert len(client.examples(taught)) == len(few) + 1
        (theirs,) = client.examples(taught, subject="zebulon", include_inputs=True)
        assert (theirs.id, theirs.label, theirs.group) == ("theirs", "lock", "g")
        assert (theirs.text, theirs.sequence, theirs.deleted) == ("my own lock is stuck", len(few), False)
        assert client.delete_examples(taught, subject="zebulon") == graft.Erasure(1, (1,), ())
        assert client.examples(taught, subject="zebulon") == []
        assert client.version(taught).trained_on_erased
        again = client.adapt(taught, [], base_version=1)
        assert (again.version, again.report.examples) == (2, len(few))
        gone = client.delete_examples(taught, subject="zebulon", delete_versions=True)
        assert gone == graft.Erasure(0, (), (1,))


def test_the_async_client_lists_and_erases_too(server, taught):
    async def scenario() -> None:
        async with graft.AsyncClient(server.target) as client:
            assert (await client.delete_examples(taught, ids=["theirs"])).erased == 1
            assert await client.examples(taught, subject="zebulon") == []

    asyncio.run(scenario())


def test_the_command_line_lists_and_forgets(server, taught, capsys):
    assert cli.main(["examples", taught, "--subject", "zebulon", "--inputs", "--server", server.target]) == 0
    assert "my own lock is stuck" in capsys.readouterr().out
    assert cli.main(["forget", taught, "--subject", "zebulon", "--server", server.target]) == 0
    printed = capsys.readouterr()
    assert f"{taught}: 1 erased" in printed.out
    assert "--delete-versions" in printed.err
    assert cli.main(["examples", taught, "--json", "--subject", "zebulon", "--server", server.target]) == 0
    assert not capsys.readouterr().out


def test_the_command_line_says_what_is_missing(server, taught, capsys):
    assert cli.main(["forget", taught, "--server", server.target]) == 1
    assert "say which examples to erase" in capsys.readouterr().err


def test_a_column_of_a_data_file_says_whose_data_an_example_is(server, few, model, tmp_path):
    path = tmp_path / "data.csv"
    rows = [f"{text},{label},{'zebulon' if n < 2 else ''}" for n, (text, label) in enumerate(few)]
    path.write_text("text,label,who\n" + "\n".join(rows))
    assert cli.main(["adapt", model, str(path), "--subject", "who", "--json", "--server", server.target]) == 0
    with graft.Client(server.target) as client:
        theirs = client.examples(model, subject="zebulon", include_inputs=True)
    assert [it.text for it in theirs] == [text for text, _ in few[:2]]
