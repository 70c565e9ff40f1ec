"""Images and clips as inputs: told by how they begin, from bytes, paths, folder trees and columns of paths."""

from __future__ import annotations

from pathlib import Path

import pytest

import graft
from graft._records.inputs.examples import example_messages, input_message

PNG, JPEG, GIF = b"\x89PNG\r\n\x1a\nrest", b"\xff\xd8\xff\xe0rest", b"GIF89arest"
WEBP, WAV = b"RIFF\x10\0\0\0WEBPrest", b"RIFF\x10\0\0\0WAVErest"
RF64, BW64 = b"RF64\xff\xff\xff\xffWAVErest", b"BW64\xff\xff\xff\xffWAVErest"
W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0rest"
FLAC, OGG, MP3, BARE_MP3 = b"fLaCrest", b"OggSrest", b"ID3\x04rest", b"\xff\xfb\x90rest"


@pytest.mark.parametrize("data", [PNG, JPEG, GIF, WEBP])
def test_an_image_is_known_by_how_it_begins_whatever_it_is_called(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(data)
    for value in (data, bytearray(data), memoryview(data), tmp_path / "clip.wav"):
        assert input_message(value).image == data


@pytest.mark.parametrize("data", [WAV, RF64, BW64, W64, FLAC, OGG, MP3, BARE_MP3])
def test_a_clip_is_known_by_how_it_begins_whatever_it_is_called(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(data)
    for value in (data, tmp_path / "image.png"):
        assert input_message(value).audio == data


def test_a_text_file_called_png_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_text("this is a text")
    with pytest.raises(
        ValueError, match=r"example 1: .*cat\.png is neither an image \(JPEG, PNG, WebP, GIF\)"
    ):
        list(example_messages([(PNG, "cat"), (tmp_path / "cat.png", "cat")]))
    with pytest.raises(ValueError, match="the 14 bytes are neither an image"):
        input_message(b"this is a text")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypheic", r"a HEIC \(save it as JPEG or PNG\), neither an image"),
        (b"\0\0\0\x18ftypM4A ", r"an M4A \(convert it to WAV, FLAC, OGG or MP3\), neither an image"),
        (b"\xef\xbb\xbf <!DOCTYPE HTML><p>", "an HTML page"),
        (b"%PDF-1.7", "a PDF"),
        (b"", "empty"),
    ],
)
def test_what_a_file_is_that_is_not_read_is_said_with_what_to_do(
    data: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "it.jpg").write_bytes(data)
    for value in (data, tmp_path / "it.jpg"):
        with pytest.raises(ValueError, match=said):
            input_message(value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.png cannot be read: No such file"):
        input_message(tmp_path / "absent.png")


def tree(folder: Path) -> Path:
    for name in ("cat/1.png", "cat/more/2.JPG", "dog/3.png"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    (folder / "dog" / "notes.txt").write_text("passed over")
    (folder / "dog" / ".hidden.png").write_bytes(PNG)
    (folder / "loose.png").write_bytes(PNG)
    (folder / "empty").mkdir()
    return folder


def test_a_folder_tree_is_read_class_by_class(tmp_path: Path) -> None:
    found = list(graft.read_examples(tree(tmp_path)))
    assert [(it.input, it.label) for it in found] == [
        (tmp_path / "cat" / "1.png", "cat"),
        (tmp_path / "cat" / "more" / "2.JPG", "cat"),
        (tmp_path / "dog" / "3.png", "dog"),
    ]
    assert [it.input.image for it in example_messages(found)] == [PNG] * 3


def test_a_folder_without_images_says_how_they_should_lie(tmp_path: Path) -> None:
    (tmp_path / "loose.png").write_bytes(PNG)
    with pytest.raises(graft.DataError, match="one folder for each class"):
        list(graft.read_examples(tmp_path))


def test_a_column_of_paths_begins_at_the_files_own_folder(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "data.csv").write_text("file,animal,owner\ncat/1.png,cat,a\ndog/3.png,dog,b\n")
    found = list(
        graft.read_examples(tmp_path / "data.csv", input="file", label="animal", group="owner", files=True)
    )
    assert [(it.input, it.label, it.group) for it in found] == [
        (tmp_path / "cat" / "1.png", "cat", "a"),
        (tmp_path / "dog" / "3.png", "dog", "b"),
    ]


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("file,label\n/elsewhere/1.png,cat\n")
    (found,) = graft.read_examples(tmp_path / "data.csv", input="file", files=True)
    assert found.input == Path("/elsewhere/1.png")
