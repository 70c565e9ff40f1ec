"""A task is added in few places: every table has a row for each, and no other file of the server names one.

What is of one task carries its name: `MultiLabelHead`, `select_multi_label`, `heads/multi_label.py`. So a file that
tells tasks apart shows it, and should ask the task's row instead. docs/adding-a-task.md lists the places.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import pytest

import graft_server
from graft.v1 import model_pb2, report_pb2, types_pb2
from graft_server.domain.examples import Task
from graft_server.domain.report import Measured, Report
from graft_server.domain.tasks.table import TASKS
from graft_server.frontends.grpc.converters.tasks import CONVERTERS, FIGURES
from graft_server.heads import HEADS
from graft_server.training.tasks.table import TRAINING

SERVER = Path(graft_server.__file__).parent

TABLES = {
    "domain/tasks/table.py",
    "heads/codec.py",
    "training/tasks/table.py",
    "adapting/interim/table.py",
    "frontends/grpc/converters/tasks.py",
}
"""Files with a row for each task."""

NAMING = {
    "domain/examples.py": "Task itself, and the targets that an example can have",
    "domain/report.py": "a report's figures, which are stored under these names",
    "exporting/runner/answers.py": "travels in a bundle, alone, and reads its settings there",
}
"""The other files that name tasks, at most three, and why."""


def own(file: str) -> bool:
    """Whether a file, or a folder that it lies in, is a task's own, by its name."""
    return any(part in set(Task) for part in Path(file).with_suffix("").parts)


def named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The classes and modules that a module names, what it imports and defines, and words of one piece.

    Neither prose nor variables: what a backbone reads may be called as a task is.
    """
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) if name[0].isupper():
                yield line, name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield line, name
            case ast.ImportFrom(module=module, names=names):
                for part in [*(module or "").split("."), *(it.name for it in names)]:
                    yield line, part
            case ast.Constant(value=str(word)) if id(node) not in prose:
                yield line, word


def is_of(task: Task, name: str) -> bool:
    """Whether a name is of a task: SINGLE_LABEL, SingleLabelHead, select_single_label, "single_label"."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
    return re.fullmatch(rf"(\w+_)?{task}(_\w+)?", snake) is not None


def found(file: Path) -> list[str]:
    """Where a file names a task, as "line: name"."""
    tree = ast.parse(file.read_text("utf-8"))
    return sorted({f"{line}: {name}" for line, name in named(tree) for task in Task if is_of(task, name)})


FILES = sorted(str(path.relative_to(SERVER)) for path in SERVER.rglob("*.py"))


@pytest.mark.parametrize(
    "table",
    [TASKS, HEADS, TRAINING, CONVERTERS],
    ids=["TASKS", "HEADS", "TRAINING", "CONVERTERS"],
)
def test_every_table_has_a_row_for_every_task(table: Mapping[Task, object]) -> None:
    missing = [task.name for task in Task if task not in table]
    assert not missing, f"docs/adding-a-task.md says what its row needs: {missing}"


def test_what_a_row_is_of_says_so() -> None:
    assert {task: head.task for task, head in HEADS.items()} == {task: task for task in Task}


def test_a_task_can_be_tuned_for_where_its_training_says_how() -> None:
    says_how = {task: row.tuning is not None for task, row in TRAINING.items()}
    assert says_how == {task: rules.tunable for task, rules in TASKS.items()}


def test_the_contract_has_each_task_and_its_targets_and_figures() -> None:
    numbers = set(types_pb2.Task.keys())
    assert numbers == {"TASK_UNSPECIFIED"} | {f"TASK_{task.name}" for task in Task}
    targets = {field.name for field in types_pb2.Example.DESCRIPTOR.oneofs_by_name["target"].fields}
    for task in Task:
        assert TASKS[task].targets.keys() == CONVERTERS[task].targets.keys(), task
        assert targets >= TASKS[task].targets.keys(), task
    for name in FIGURES:
        assert name in report_pb2.Report.DESCRIPTOR.fields_by_name
        assert name in model_pb2.EvaluateModelResponse.DESCRIPTOR.fields_by_name
        assert {name} <= {it.name for it in fields(Report)} & {it.name for it in fields(Measured)}


def test_every_file_of_a_task_is_there() -> None:
    places = [
        "domain/tasks/{}.py", "evaluation/{}.py", "heads/{}.py", "training/tasks/{}/__init__.py",
        "frontends/grpc/converters/{}.py",
    ]  # fmt: skip
    missing = [path for task in Task for it in places if not (SERVER / (path := it.format(task))).is_file()]
    assert not missing


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(task): return task is Task.MULTI_LABEL", True),
        ("from graft_server.heads.regression import anything", True),
        ("isinstance(head, SingleLabelHead)", True),
        ("settings['task'] == 'regression'", True),
        ("from anywhere import select_multi_label", True),
        ('"""A regression answers with a number; multi_label with several."""', False),
        ("'a regression answers with a number'", False),
        ("Task.DEFAULT", False),
        ("head.labels", False),
        ("regression = problem.kernel", False),
    ],
)
def test_naming_is_found_in_code_and_not_in_prose(source: str, names: bool, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(source, "utf-8")
    assert bool(found(file)) is names


def test_no_other_file_names_a_task() -> None:
    naming = {file: where for file in FILES if not own(file) and (where := found(SERVER / file))}
    more = {file: where for file, where in naming.items() if file not in TABLES | NAMING.keys()}
    assert not more, "\n".join(
        ["These files tell tasks apart: let them ask the task's row (docs/adding-a-task.md).",
         *(f"{file}: {', '.join(where)}" for file, where in more.items())]
    )  # fmt: skip
    assert naming.keys() >= NAMING.keys() | TABLES, "what is listed here and names no task can be left out"
    assert len(NAMING) <= 3
