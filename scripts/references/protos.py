"""The contract, from the protos and their comments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from scripts.references import markdown

_ROOT = Path(__file__).parents[2] / "protos"
_PREFIX = ".graft.v1."
_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES, _ENUMS, _SERVICES, _MEMBERS = 4, 5, 6, 2
"""The numbers of fields in FileDescriptorProto, DescriptorProto and their kin, which paths of comments are made of."""

_INTRODUCTION: Final = (
    "Package `graft.v1`, in [`protos/graft/v1`](../../protos/graft/v1). Fields without presence have their zero value "
    "where they are not set. [The contract](../api.md) says what a caller needs to know beside this page."
)


def page() -> str:
    """The page."""
    parts = [
        "# The protos",
        markdown.GENERATED,
        _INTRODUCTION,
    ]
    for file in _files():
        told = {tuple(it.path): it.leading_comments for it in file.source_code_info.location}
        parts.append(f"## {file.name}")
        for index, service in enumerate(file.service):
            rows = (
                (f"`{it.name}`", _call(it), told.get((_SERVICES, index, _MEMBERS, place), ""))
                for place, it in enumerate(service.method)
            )
            heads = ("call", "messages", "what it does")
            parts += [f"### {service.name}", told.get((_SERVICES, index), ""), markdown.table(heads, rows)]
        for index, message in enumerate(file.message_type):
            parts += [f"### {message.name}", told.get((_MESSAGES, index), "")]
            parts.append(markdown.table(("field", "type", "what it says"), _fields(message, told, index)))
        for index, enumeration in enumerate(file.enum_type):
            values = (
                (f"`{it.name}`", str(it.number), told.get((_ENUMS, index, _MEMBERS, place), ""))
                for place, it in enumerate(enumeration.value)
            )
            parts += [f"### {enumeration.name}", told.get((_ENUMS, index), "")]
            parts.append(markdown.table(("value", "number", "what it says"), values))
    return markdown.joined(" ".join(it.split()) if "\n|" not in it and it[:1] == " " else it for it in parts)


def _files() -> Sequence[descriptor_pb2.FileDescriptorProto]:
    """The files of the contract with their comments, by name."""
    names = sorted(str(it.relative_to(_ROOT)) for it in (_ROOT / "graft").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all.binpb"
        paths = (_ROOT, files("grpc_tools") / "_proto")
        command = [
            "protoc",
            *(f"-I{it}" for it in paths),
            "--include_source_info",
            f"--descriptor_set_out={out}",
        ]
        if protoc.main([*command, *names]) != 0:
            raise RuntimeError("protoc refuses the protos; it says why above")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


def _call(method: descriptor_pb2.MethodDescriptorProto) -> str:
    asked = ("stream " if method.client_streaming else "") + method.input_type.removeprefix(_PREFIX)
    answered = ("stream " if method.server_streaming else "") + method.output_type.removeprefix(_PREFIX)
    return f"`{asked}` → `{answered}`"


def _fields(
    message: descriptor_pb2.DescriptorProto, told: dict[tuple[int, ...], str], index: int
) -> Iterator[tuple[str, str, str]]:
    entries = {f".{it.name}": it for it in message.nested_type if it.options.map_entry}
    for place, field in enumerate(message.field):
        kind = _kind(field)
        entry = next((it for name, it in entries.items() if field.type_name.endswith(name)), None)
        if entry is not None:
            kind = f"map<{_kind(entry.field[0])}, {_kind(entry.field[1])}>"
        elif field.label == _FIELD.LABEL_REPEATED:
            kind = f"repeated {kind}"
        elif field.proto3_optional:
            kind = f"optional {kind}"
        chosen = field.HasField("oneof_index") and not field.proto3_optional
        one_of = f" (one of `{message.oneof_decl[field.oneof_index].name}`)" if chosen else ""
        comment = told.get((_MESSAGES, index, _MEMBERS, place), "")
        yield f"`{field.name}` = {field.number}", f"`{kind}`{one_of}", comment


def _kind(field: descriptor_pb2.FieldDescriptorProto) -> str:
    if field.type_name:
        return field.type_name.removeprefix(_PREFIX).removeprefix(".")
    return str(_FIELD.Type.Name(field.type)).removeprefix("TYPE_").lower()
