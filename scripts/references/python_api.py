"""The Python client, from the signatures and docstrings of its public names."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import textwrap
import typing
from typing import Any, Final

from scripts.references import markdown

import graft
from graft import sklearn

_INTRODUCTION: Final = (
    "`pip install graft-serve` installs it; it needs gRPC and protobuf, and neither torch nor NumPy. `AsyncClient` has "
    "the methods of `Client`, awaited."
)


def page() -> str:
    """The page."""
    classes = {name: getattr(graft, name) for name in graft.__all__ if inspect.isclass(getattr(graft, name))}
    functions = {
        name: getattr(graft, name) for name in graft.__all__ if inspect.isfunction(getattr(graft, name))
    }
    errors = {name: it for name, it in classes.items() if issubclass(it, Exception)}
    clients = {name: it for name, it in classes.items() if name.endswith("Client")}
    data = {name: it for name, it in classes.items() if name not in errors and name not in clients}
    return markdown.joined(
        (
            "# The Python client",
            markdown.GENERATED,
            _INTRODUCTION,
            "## Functions",
            *(_function(f"graft.{name}", it, "###") for name, it in functions.items()),
            *(_class(name, it, methods=name != "AsyncClient") for name, it in clients.items()),
            "## graft.sklearn",
            markdown.prose(inspect.getdoc(sklearn) or ""),
            _class("sklearn.GraftClassifier", sklearn.GraftClassifier, "###"),
            _function("graft.sklearn.delete_scratch", sklearn.delete_scratch, "###"),
            "## Data",
            *(_class(name, it, "###") for name, it in data.items()),
            "## Errors",
            markdown.table(
                ("error", "what it says"), ((f"`graft.{name}`", _summary(it)) for name, it in errors.items())
            ),
        )
    )


def _class(name: str, it: type, heading: str = "##", *, methods: bool = True) -> str:
    parts = [f"{heading} graft.{name}", markdown.prose(inspect.getdoc(it) or "")]
    if dataclasses.is_dataclass(it) or typing.is_typeddict(it):
        parts.append(_fields(it))
    elif not issubclass(it, enum.Enum) and methods and "__init__" in vars(it):
        parts.append(f"```text\n{name}{_signature(it)}\n```")
    if methods:
        members = [(key, value) for key, value in _members(it) if not key.startswith("_")]
        parts += [
            _function(f"{name}.{key}", value, "####" if heading == "###" else "###") for key, value in members
        ]
    return markdown.joined(parts)


def _members(it: type) -> list[tuple[str, Any]]:
    """Methods and properties of the class and of our own classes above it, in the order in which they are written."""
    ours = reversed([each for each in it.__mro__ if each.__module__.startswith("graft.")])
    found = {key: value for above in ours for key, value in vars(above).items()}
    kinds = (property, staticmethod, classmethod)
    return [(key, it) for key, it in found.items() if isinstance(it, kinds) or inspect.isfunction(it)]


def _function(name: str, it: Any, heading: str) -> str:
    if isinstance(it, property):
        return markdown.joined((f"{heading} {name}", markdown.prose(inspect.getdoc(it.fget) or "")))
    plain = inspect.unwrap(getattr(it, "__func__", it))
    short = name.rpartition(".")[2]
    return markdown.joined(
        (
            f"{heading} {name}",
            f"```text\n{short}{_signature(plain)}\n```",
            markdown.prose(inspect.getdoc(plain) or ""),
        )
    )


def _signature(it: Any) -> str:
    signature = inspect.signature(it)
    shown = [value for key, value in signature.parameters.items() if key != "self"]
    # Annotations are texts, which are shown in quotes.
    text = re.sub(r"(: |-> )(['\"])(.*?)\2", r"\1\3", str(signature.replace(parameters=shown)))
    if len(text) <= 80:
        return text
    inner, _, after = text[1:].rpartition(")")
    parts = re.split(r", (?=[*\w]+(?::|=|,|$))(?![^\[]*\])", inner)
    return "(\n" + "".join(f"    {part},\n" for part in parts) + ")" + after


def _fields(it: type) -> str:
    """The fields of a dataclass, or the keys of a typed dict, with the docstrings behind them."""
    told: dict[str, tuple[str, str]] = {}
    for above in reversed([each for each in it.__mro__ if each.__module__.startswith("graft.")]):
        body = ast.parse(textwrap.dedent(inspect.getsource(above))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, behind in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = ""
                if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
                    text = str(behind.value.value)
                told[node.target.id] = (ast.unparse(node.annotation), text)
    names = (
        [field.name for field in dataclasses.fields(it)]
        if dataclasses.is_dataclass(it)
        else [*it.__annotations__]
    )
    public = [name for name in names if not name.startswith("_")]
    return markdown.table(
        ("field", "type", "what it says"),
        ((f"`{name}`", f"`{told[name][0]}`", told[name][1]) for name in public if name in told),
    )


def _summary(it: type) -> str:
    return (inspect.getdoc(it) or "").partition("\n\n")[0]
