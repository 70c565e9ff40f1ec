"""The reasons of errors and of refused examples, from the places in the sources that make them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from scripts.references import markdown

from graft import errors as client
from graft_server.domain import errors as domain
from graft_server.frontends.grpc.errors import CODES

_ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = {"server": _ROOT / "server" / "graft_server", "client": _ROOT / "client" / "graft"}
_REASON: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9…]+)+|DRAINING|INTERNAL|FORKED")
_RAISED_AS: Final = {
    "AudioError": "InvalidError",
    "ImageError": "InvalidError",
    "Refused": "InvalidError",
    "NothingToTrainOn": "InvalidError",
    "_conflict": "ConflictError",
}
"""Errors of a part alone and functions that make errors, by what reaches a caller."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_INTRODUCTION: Final = (
    "Errors, and examples that are refused alone, carry a `reason`: a word for programs. It stays as it is, while "
    "messages may be worded anew. `graft` shows it in brackets behind the message, Python has it as `error.reason`, "
    "and the contract in `google.rpc.ErrorInfo`. An example that is refused alone has no code: its stream goes on. "
    "In messages, … stands for values. [Troubleshooting](../troubleshooting.md) says what to do about those that "
    "people meet most."
)


@dataclass(frozen=True, slots=True)
class Made:
    """A place in the sources that makes an error."""

    reason: str
    code: str
    """The code of gRPC, or ""."""
    side: str
    """Which part says it: "server" or "client"."""
    message: str
    """What it says, with … for values; "" where that is put together elsewhere."""


@dataclass(frozen=True, slots=True)
class _Place:
    side: str
    module: ast.Module
    owner: str
    """The class that the function is a method of, or ""."""
    scope: _Function


def page() -> str:
    """The page."""
    by_reason: dict[str, list[Made]] = {}
    for it in sorted(all_made(), key=lambda it: (it.reason, it.side == "client")):
        by_reason.setdefault(it.reason, []).append(it)
    rows = (
        (
            f"`{reason}`",
            ", ".join(dict.fromkeys(f"`{it.code}`" for it in made if it.code)),
            ", ".join(dict.fromkeys(it.side for it in made)),
            " · ".join(dict.fromkeys(it.message for it in made if it.message)),
        )
        for reason, made in by_reason.items()
    )
    heads = ("reason", "code", "said by", "message")
    return markdown.joined(("# Reasons", markdown.GENERATED, _INTRODUCTION, markdown.table(heads, rows)))


@cache
def parsed() -> dict[str, list[ast.Module]]:
    """The modules of server and client, but for generated ones."""
    return {
        side: [
            ast.parse(it.read_text("utf-8")) for it in sorted(folder.rglob("*.py")) if it.parent.name != "v1"
        ]
        for side, folder in _SOURCES.items()
    }


def all_made() -> Iterator[Made]:
    """Yields the places of server and client that make an error with a reason."""
    for side, modules in parsed().items():
        constants = {key: value for tree in modules for key, value in _constants(tree)}
        for tree in modules:
            for scope, owner in _functions(tree, ""):
                for call in _calls(scope):
                    yield from _made(call, _Place(side, tree, owner, scope), constants)


def _functions(parent: ast.AST, owner: str) -> Iterator[tuple[_Function, str]]:
    """Yields the functions of a module, each with the class that it is a method of."""
    for child in ast.iter_child_nodes(parent):
        if isinstance(child, _Function):
            yield child, owner
        yield from _functions(child, child.name if isinstance(child, ast.ClassDef) else owner)


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    """Yields the calls of a function, but not those of functions within it."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, _Function):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _calls(child)


def _made(call: ast.Call, place: _Place, constants: dict[str, str]) -> Iterator[Made]:
    name = ast.unparse(call.func).rpartition(".")[2]
    name = place.owner if name in {"__init__", "cls"} else name
    named = {it.arg: it.value for it in call.keywords}
    if "reason" not in named and name not in _RAISED_AS and not name.endswith("Error"):
        return
    values = [named["reason"]] if "reason" in named else list(call.args)
    for value in values:
        reason = constants.get(ast.unparse(value).rpartition(".")[2]) or _text(value, place.scope)
        if _REASON.fullmatch(reason):
            messages = _messages(call.args[0], place) if call.args else [""]
            code = _code(name, place.side)
            yield from (
                Made(reason, code, place.side, it)
                for it in messages
                if it != reason and (code or place.side == "client")
            )


def _messages(value: ast.AST, place: _Place) -> list[str]:
    """What an expression says; of a function's first parameter, what those say who call the function."""
    scope = place.scope
    text = _text(value, scope)
    if not text and scope.args.args and ast.unparse(value) == scope.args.args[0].arg:
        callers = [(call, where) for where, _ in _functions(place.module, "") for call in _calls(where)]
        return [
            _text(call.args[0], where)
            for call, where in callers
            if ast.unparse(call.func) == scope.name and call.args
        ] or [""]
    return [text]


def _code(name: str, side: str) -> str:
    """The code of gRPC of an error of this name, "" if it has none."""
    if side == "server":
        kind = getattr(domain, _RAISED_AS.get(name, name), None)
        above = kind.__mro__ if isinstance(kind, type) else ()
        return next((str(CODES[it].name) for it in above if it in CODES), "")
    kind = getattr(client, name, None)
    if not isinstance(kind, type) or not issubclass(kind, client.GraftError):
        return ""
    base = next(
        it
        for it in reversed(kind.__mro__)
        if issubclass(it, client.GraftError) and it is not client.GraftError
    )
    return "_".join(re.findall("[A-Z][a-z]+", base.__name__.removesuffix("Error"))).upper()


def _text(value: ast.AST, scope: ast.AST) -> str:
    """What an expression says, with … for values."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(it, scope) if isinstance(it, ast.Constant) else "…" for it in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, scope) + _text(right, scope)
        case ast.IfExp(body=body, orelse=other):
            return f"{_text(body, scope)} / {_text(other, scope)}"
        case ast.Name(id=name):
            for it in ast.walk(scope):
                if isinstance(it, ast.Assign) and any(ast.unparse(to) == name for to in it.targets):
                    return _text(it.value, scope)
    return ""


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the reasons that a module has names for, and the names."""
    for it in tree.body:
        targets = (
            it.targets if isinstance(it, ast.Assign) else [it.target] if isinstance(it, ast.AnnAssign) else ()
        )
        value = getattr(it, "value", None)
        if (
            isinstance(value, ast.Constant)
            and isinstance(value.value, str)
            and _REASON.fullmatch(value.value)
        ):
            yield from ((ast.unparse(to), value.value) for to in targets)
