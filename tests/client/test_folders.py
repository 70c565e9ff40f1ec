"""Folders of images and clips as people have them: classes, splits, leftovers of systems, formats that are not read."""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import graft
from graft._data_files.columns import Row, RowError
from graft._data_files.folders.tree import FOLDER_COLUMNS, FolderTree
from graft._data_files.reader import numbered_examples
from graft._data_files.refused import RowsRead
from graft._records.records import Rejection
from graft.cli import build_parser
from graft.cli.refusals import say_refusals
from graft.cli.showing.phrases import lines_of
from graft.cli.showing.terminal import Terminal

PNG, WAV, TIFF = b"\x89PNG\r\n\x1a\nrest", b"RIFF\x10\0\0\0WAVErest", b"II*\0\x08\0\0\0rest"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
M4A = b"\0\0\0\x20ftypM4A \0\0\2\0M4A isom"


def laid(folder: Path, *names: str, data: bytes = PNG) -> Path:
    """Writes files of these names below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, tuple[str, str]]:
    """Path to label and split of a folder's files."""
    with FolderTree(folder) as tree:
        rows = [it for it in tree.rows() if isinstance(it, Row)]
        return {it.values["path"]: (it.values["label"], it.values["split"]) for it in rows}


def remarks(folder: Path) -> str:
    return " ".join(FolderTree(folder).remarks)


def refused(folder: Path) -> list[str]:
    with FolderTree(folder) as tree:
        return [str(it) for it in tree.rows() if isinstance(it, RowError)]


BAD = {
    "empty.jpg": (b"", "it is empty"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body>", "an HTML page"),
    "old.png": (TIFF, "a TIFF (save it as JPEG or PNG)"),
    "phone.jpg": (HEIC, "a HEIC"),
    "text.png": (b"this is a text", "neither an image (JPEG, PNG, WebP, GIF)"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "voice.wav": (M4A, "an M4A (convert it"),
    "film.jpg": (MP4, "an MP4"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_picture_is_refused_alone_by_its_path(tmp_path: Path, name: str) -> None:
    data, said = BAD[name]
    laid(tmp_path, "cat/1.png", "dog/2.png", "dog/3.png")
    laid(tmp_path, f"cat/{name}", data=data)
    assert list(read(tmp_path)) == ["cat/1.png", "dog/2.png", "dog/3.png"]
    (error,) = refused(tmp_path)
    assert error.startswith(f"{tmp_path}/cat/{name}: ")
    assert said in error


def test_the_terminal_names_the_files_that_the_client_or_the_server_refused(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "cat/2.png", "dog/4.png")
    laid(tmp_path, "cat/3.png", data=b"<html>")
    rows = RowsRead()
    terminal = Terminal()
    terminal.err = Console(file=io.StringIO(), width=1000, highlight=False)
    with FolderTree(tmp_path) as tree:
        rows.place = tree.place
        for line, _ in numbered_examples(tree, FOLDER_COLUMNS, rows.refuse):
            rows.take(line)
        corrupt = Rejection(2, "IMAGE_CORRUPT", "", "The PNG image cannot be decoded", "w")
        args = build_parser().parse_args(["adapt", "m", str(tmp_path)])
        say_refusals(terminal, [corrupt], 1, rows, args)
    assert isinstance(terminal.err.file, io.StringIO)
    shown = terminal.err.file.getvalue()
    assert "2 examples were refused" in shown
    assert "cat/3.png: it is an HTML page" in shown
    assert "dog/4.png: The PNG image cannot be decoded [IMAGE_CORRUPT]" in shown


def test_an_evaluation_names_files_of_a_folder_and_lines_of_a_table(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png")
    rows = RowsRead("file")
    with FolderTree(tmp_path) as tree:
        rows.place = tree.place
        for line, _ in numbered_examples(tree, FOLDER_COLUMNS, rows.refuse):
            rows.take(line)
    assert lines_of([0, 1], 3, rows) == "files cat/1.png, dog/2.png and 1 more"
    table = RowsRead()
    table.take(7)
    assert lines_of([0], 1, table) == "line 7"
    assert lines_of([0, 1], 2, [5, 9]) == "lines 5, 9"


def test_a_link_to_nothing_is_refused_alone(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(read(tmp_path)) == ["cat/1.png", "dog/2.png"]
    assert "cat/gone.png: it cannot be read: No such file" in refused(tmp_path)[0]


def test_files_that_are_no_pictures_are_warned_of_in_python_and_the_others_follow(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png", "dog/3.png")
    laid(tmp_path, "cat/page.png", "dog/page.png", data=b"<html>")
    with pytest.warns(UserWarning, match=r"2 files of .* are left out: cat/page\.png: it is an HTML page"):
        found = list(graft.read_examples(tmp_path))
    assert [it.label for it in found] == ["cat", "dog", "dog"]
    bad: list[RowError] = []
    assert len(list(graft.read_examples(tmp_path, on_error=bad.append))) == 3
    assert [it.place for it in bad] == ["cat/page.png", "dog/page.png"]
    with pytest.raises(graft.DataError, match=r"cat/page\.png: it is an HTML page"):
        list(graft.read_examples(tmp_path, on_error="raise"))


def test_files_of_formats_that_are_not_read_are_named_with_their_counts_by_class(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png", "bird/3.png")
    laid(tmp_path, "cat/a.HEIC", "cat/b.heic", "dog/c.heic", data=HEIC)
    laid(tmp_path, "dog/film.mp4", data=MP4)
    said = remarks(tmp_path)
    assert "4 files are left out" in said
    assert "3 .heic (cat 2, dog 1), 1 .mp4 (dog 1)" in said
    assert "No file of" not in said
    with pytest.warns(UserWarning, match=r"3 \.heic \(cat 2, dog 1\)"):
        list(graft.read_examples(tmp_path))


def test_a_class_of_which_no_file_is_read_is_named_first(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png")
    laid(tmp_path, "bird/1.avif", "bird/2.tiff", "fish/1.svg", data=TIFF)
    said = FolderTree(tmp_path).remarks
    assert said[0] == "No file of 2 classes is read: bird (1 .avif, 1 .tiff), fish (1 .svg)."


def test_where_no_file_is_read_the_error_names_the_formats(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.m4a", "dog/2.m4a", data=M4A)
    with pytest.raises(graft.DataError, match=r"2 \.m4a \(cat 1, dog 1\)"):
        list(graft.read_examples(tmp_path))


def test_pictures_and_clips_are_known_by_their_content_under_any_name(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.JPG", "cat/2.jfif", "cat/3", "cat/4.png.part", "dog/5.dat", "dog/6.PNG")
    laid(tmp_path, "dog/7.wave", data=WAV)
    assert len(read(tmp_path)) == 7
    assert remarks(tmp_path) == ""


def test_leftovers_of_systems_are_left_out_without_a_word(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png")
    laid(
        tmp_path, ".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "cat/._1.png", "dog/desktop.ini",
        "dog/@eaDir/2.png", "__MACOSX/cat/1.png", ".ipynb_checkpoints/x.png", "dog/.cache/3.png", "@eaDir/y.png",
    )  # fmt: skip
    assert list(read(tmp_path)) == ["cat/1.png", "dog/2.png"]
    assert remarks(tmp_path) == ""


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train", "val"),
        ("Train", "Valid"),
        ("training", "validation"),
        ("train", "dev"),
        ("TRAIN", "eval"),
        ("train_images", "val_images"),
        ("Training Set", "Validation Set"),
        ("seg-train", "seg-val"),
        ("train/train", "val/val"),
        ("seg_train/seg_train", "seg_val/seg_val"),
    ],
)
def test_train_and_val_above_the_classes_are_splits(tmp_path: Path, train: str, validation: str) -> None:
    laid(
        tmp_path,
        *(
            f"{split}/{name}/{i}.png"
            for split in (train, validation)
            for name in ("cat", "dog")
            for i in "12"
        ),
    )
    assert read(tmp_path) == {
        f"{folder}/{name}/{i}.png": (name, split)
        for folder, split in ((train, "train"), (validation, "validation"))
        for name in ("cat", "dog")
        for i in "12"
    }
    assert remarks(tmp_path) == ""


def test_a_test_split_is_left_out_and_said_with_how_to_measure_on_it(tmp_path: Path) -> None:
    laid(
        tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "val", "test") for name in ("cat", "dog"))
    )
    assert {it[1] for it in read(tmp_path).values()} == {"train", "validation"}
    assert "2 files of the split test are left out" in remarks(tmp_path)
    assert f"graft evaluate MODEL {tmp_path}/test" in remarks(tmp_path)
    assert {it[0] for it in read(tmp_path / "test").values()} == {"cat", "dog"}
    with pytest.warns(UserWarning, match="the split test"):
        assert {it.split for it in graft.read_examples(tmp_path)} == {"train", "validation"}


def test_splits_within_each_class_are_splits_too(tmp_path: Path) -> None:
    laid(
        tmp_path, *(f"{name}/{split}/1.png" for split in ("train", "val", "test") for name in ("cat", "dog"))
    )
    assert read(tmp_path) == {
        f"{name}/{folder}/1.png": (name, split)
        for name in ("cat", "dog")
        for folder, split in (("train", "train"), ("val", "validation"))
    }
    assert "2 files of the split test" in remarks(tmp_path)


def test_folders_beside_splits_are_left_out_and_named(tmp_path: Path) -> None:
    laid(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "val") for name in ("cat", "dog")))
    laid(tmp_path, "unlabelled/1.png", "unlabelled/2.png")
    laid(tmp_path, "annotations/a.txt", data=b"text")
    assert {it[0] for it in read(tmp_path).values()} == {"cat", "dog"}
    assert "The folder unlabelled (2 files) is left out" in remarks(tmp_path)
    assert "annotations" not in remarks(tmp_path)


def test_a_class_that_is_named_as_a_split_stays_a_class(tmp_path: Path) -> None:
    laid(tmp_path, "train/1.png", "bus/2.png", "car/3.png")
    assert {it[0] for it in read(tmp_path).values()} == {"train", "bus", "car"}
    assert {it[1] for it in read(tmp_path).values()} == {""}


@pytest.mark.parametrize("inner", ["", "red/"])
def test_classes_whose_names_only_contain_those_of_splits_stay_classes(tmp_path: Path, inner: str) -> None:
    classes = ("bullet_train", "steam_train", "litmus_test")
    laid(tmp_path, *(f"{name}/{inner}1.png" for name in classes))
    assert read(tmp_path) == {f"{name}/{inner}1.png": (name, "") for name in classes}


def test_splits_without_classes_are_asked_about(tmp_path: Path) -> None:
    laid(tmp_path, "train/1.png", "val/2.png")
    with pytest.raises(
        graft.DataError, match=r"train: it is named as a split is.*train/CLASS/.*another name"
    ):
        list(graft.read_examples(tmp_path))


def test_folders_within_folders_of_classes_belong_to_them(tmp_path: Path) -> None:
    laid(tmp_path, "cat/2020/1.png", "cat/2021/more/2.png", "dog/3.png")
    assert [it[0] for it in read(tmp_path).values()] == ["cat", "cat", "dog"]


@pytest.mark.parametrize("above", ["", "train/"])
def test_what_was_unpacked_into_a_folder_of_its_own_is_found_there(tmp_path: Path, above: str) -> None:
    laid(tmp_path, f"set/{above}cat/1.png", f"set/{above}dog/2.png", "__MACOSX/set/cat/1.png")
    if above:
        laid(tmp_path, "set/val/cat/3.png", "set/val/dog/4.png")
    assert {it[0] for it in read(tmp_path).values()} == {"cat", "dog"}
    assert "The classes are the folders in set" in remarks(tmp_path)


def test_one_folder_of_files_is_one_class(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "cat/2.png")
    assert {it[0] for it in read(tmp_path).values()} == {"cat"}
    assert remarks(tmp_path) == ""


def test_a_flat_folder_says_how_files_should_lie(tmp_path: Path) -> None:
    laid(tmp_path, "1.png", "2.png")
    with pytest.raises(graft.DataError, match="one folder for each class"):
        list(graft.read_examples(tmp_path))


def test_files_beside_the_folders_of_classes_are_said_to_be_left_out(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png", "loose.png")
    laid(tmp_path, "README.md", data=b"text")
    assert remarks(tmp_path) == "1 file beside the folders of classes is left out: a file needs a class."


def test_texts_beside_pictures_are_passed_over_and_counted(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png")
    laid(tmp_path, "cat/1.txt", "dog/2.txt", "dog/notes.json", data=b"text")
    assert remarks(tmp_path) == "3 files of text are passed over: 2 .txt, 1 .json."
    assert len(list(graft.read_examples(tmp_path))) == 2


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = laid(tmp_path / "elsewhere", "dog/2.png", "more/3.png")
    folder = laid(tmp_path / "here", "cat/1.png")
    (folder / "dog").symlink_to(elsewhere / "dog")
    (folder / "cat" / "more").symlink_to(elsewhere / "more")
    (folder / "cat" / "again").symlink_to(folder / "cat")
    assert list(read(folder)) == ["cat/1.png", "cat/more/3.png", "dog/2.png"]


def test_names_that_differ_only_in_how_accents_are_written_are_one_class(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    laid(tmp_path, f"{names[0]}/1.png", f"{names[1]}/2.png", "tea/3.png")
    labels = [it[0] for it in read(tmp_path).values()]
    assert sorted(labels) == sorted([names[0], names[0], "tea"])


def test_a_pipe_among_the_files_stops_nothing(tmp_path: Path) -> None:
    laid(tmp_path, "cat/1.png", "dog/2.png")
    os.mkfifo(tmp_path / "cat" / "pipe")
    assert list(read(tmp_path)) == ["cat/1.png", "dog/2.png"]


def test_a_file_of_a_column_of_paths_that_is_none_is_refused_alone_by_its_line(tmp_path: Path) -> None:
    laid(tmp_path, "1.png", "3.png")
    laid(tmp_path, "2.png", data=b"<html>")
    (tmp_path / "data.csv").write_text("text,label\n1.png,a\n2.png,b\nabsent.png,b\n3.png,b\n")
    bad: list[RowError] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(graft.read_examples(tmp_path / "data.csv", files=True, on_error=bad.append))
    assert [it.input for it in found] == [tmp_path / "1.png", tmp_path / "3.png"]
    assert [it.line for it in bad] == [3, 4]
    assert "2.png: it is an HTML page" in str(bad[0])
    assert "absent.png: it cannot be read: No such file" in str(bad[1])
