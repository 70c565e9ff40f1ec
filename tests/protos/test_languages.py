"""The protos generate code for other languages as they are, with `-I protos`, and with names as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from tests.docs.pages import blocks_of

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
PAGE = ROOT / "docs" / "languages.md"
OURS = sorted(PROTOS.glob("graft/**/*.proto"))
OPTIONS = {
    "csharp_namespace": "Graft.V1",
    "go_package": "graft/v1;graftv1",
    "java_multiple_files": True,
    "java_package": "graft.v1",
    "objc_class_prefix": "GFT",
    "php_namespace": "Graft\\V1",
    "ruby_package": "Graft::V1",
}
RUBY_SHADOWED = {
    *(
        "class",
        "clone",
        "display",
        "dup",
        "extend",
        "freeze",
        "hash",
        "inspect",
        "itself",
        "method",
        "methods",
    ),
    *("object_id", "send", "singleton_class", "tap", "then", "to_h", "to_s"),
}
"""What every Ruby object answers by itself, so that a message's field of this name is read as message["name"]."""
NOT_READ_AS_A_METHOD = {"AdaptStart.method", "Evaluation.method", "Report.method", "TuningReport.method"}
"""docs/languages.md tells Ruby's callers."""


def protoc(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "protoc", "-I", PROTOS, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources of each language in one of its own."""
    folder = tmp_path_factory.mktemp("generated")
    languages = ("cpp", "csharp", "java", "kotlin", "objc", "php", "ruby")
    for language in languages:
        (folder / language).mkdir()
    errors = PROTOS / "google/rpc/error_details.proto"
    protoc(*(f"--{language}_out={folder / language}" for language in languages), *OURS, errors)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    kept = tmp_path_factory.mktemp("descriptors") / "graft.binpb"
    protoc(f"--descriptor_set_out={kept}", *OURS)
    return list(FileDescriptorSet.FromString(kept.read_bytes()).file)


def messages(files: list[FileDescriptorProto]) -> Iterator[DescriptorProto]:
    for file in files:
        for message in file.message_type:
            yield message
            yield from (nested for nested in message.nested_type if not nested.options.map_entry)


def fields(files: list[FileDescriptorProto]) -> Iterator[tuple[DescriptorProto, FieldDescriptorProto]]:
    for message in messages(files):
        for field in message.field:
            yield message, field


def camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def text_of(folder: Path, pattern: str) -> str:
    found = [path.read_text() for path in sorted(folder.rglob(pattern))]
    assert found
    return "\n".join(found)


def test_every_file_says_its_package_in_each_language(files: list[FileDescriptorProto]):
    for file in files:
        said = {name: getattr(file.options, name) for name in OPTIONS}
        outer = f"{camel(Path(file.name).stem)}Proto"
        assert (file.name, said, file.options.java_outer_classname) == (file.name, OPTIONS, outer)


def test_errors_details_lie_beside_the_contract(generated: Path):
    for path in ("cpp/google/rpc/error_details.pb.h", "java/com/google/rpc/ErrorInfo.java"):
        assert (generated / path).is_file()


def test_java_adds_no_numbers_to_names_that_collide(generated: Path, files: list[FileDescriptorProto]):
    for message in messages(files):
        source = (generated / "java/graft/v1" / f"{message.name}.java").read_text()
        for field in message.field:
            numbered = f"{camel(field.name)}{field.number}"
            collided = (f"{numbered}{rest}" for rest in ("(", "Count(", "List(", "Map("))
            assert not any(name in source for name in collided), f"{message.name}.{field.name}"


def test_no_count_stands_beside_the_list_that_generated_code_counts(files: list[FileDescriptorProto]):
    for message in messages(files):
        names = {field.name for field in message.field}
        for field in message.field:
            if field.label == FieldDescriptor.LABEL_REPEATED:
                generated = {f"{field.name}_{suffix}" for suffix in ("count", "list", "map", "array")}
                assert not names & generated, message.name


def test_csharp_renames_no_property(generated: Path):
    assert re.findall(r"\bpublic [^\n=({;]*\b\w+_ *[{;]", text_of(generated / "csharp", "*.cs")) == []


def test_no_message_has_a_field_of_its_own_name(files: list[FileDescriptorProto]):
    for message, field in fields(files):
        assert camel(field.name) != message.name


def test_php_renames_no_class(generated: Path, files: list[FileDescriptorProto]):
    ours = {path.stem for path in (generated / "php/Graft/V1").glob("*.php")}
    assert {message.name for message in messages(files) if "_" not in message.name} <= ours
    assert not [name for name in ours if name.startswith("PB")]


def test_objective_c_and_cpp_and_ruby_say_their_package(generated: Path):
    assert "@interface GFTModelVersion : GPBMessage" in text_of(generated / "objc", "*.h")
    assert "namespace graft" in (generated / "cpp/graft/v1/model.pb.h").read_text()
    assert "module Graft\n  module V1\n" in (generated / "ruby/graft/v1/model_pb.rb").read_text()


def test_ruby_reads_fields_as_methods_but_for_those_that_the_docs_name(files: list[FileDescriptorProto]):
    shadowed = {
        f"{message.name}.{field.name}" for message, field in fields(files) if field.name in RUBY_SHADOWED
    }
    assert shadowed == NOT_READ_AS_A_METHOD


def test_the_commands_of_the_docs_generate_code(tmp_path: Path):
    """All but the stubs of languages whose plugin is not installed here."""
    (block,) = (it for it in blocks_of(PAGE.read_text()) if it.code.startswith("protoc "))
    languages = set()
    for line in block.code.splitlines():
        words = line.split()
        built_in = [
            it for it in words if re.fullmatch(r"--(cpp|csharp|java|kotlin|objc|php|ruby)_out=OUT", it)
        ]
        files = [path for it in words if it.endswith(".proto") for path in sorted(ROOT.glob(it))]
        assert words[:3] == ["protoc", "-I", "protos"]
        assert files
        if built_in:
            protoc(*(it.replace("OUT", str(tmp_path)) for it in built_in), *files)
        languages |= {it.split("_")[0] for it in built_in}
    assert languages == {"--cpp", "--csharp", "--java", "--kotlin", "--objc", "--php", "--ruby"}
    made = {path.suffix for path in tmp_path.rglob("*.*")}
    assert {".cc", ".cs", ".java", ".kt", ".m", ".php", ".rb"} <= made


@pytest.mark.skipif(shutil.which("protoc-gen-go") is None, reason="protoc-gen-go is not installed")
def test_go_generates_one_package_without_flags(tmp_path: Path):
    protoc(f"--go_out={tmp_path}", *OURS)
    source = text_of(tmp_path / "graft/v1", "*.pb.go")
    assert source.count("\npackage graftv1\n") == len(OURS)
    assert re.findall(r"^(?:\t|type )[A-Z]\w*_ ", source, re.MULTILINE) == []
