"""The cache wherever it was made: by another user, on a read-only file system, in a folder that is shared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from graft_server.backbones.graphs import cache_folder
from graft_server.backbones.graphs.cache import GRAPH, EncoderCache
from graft_server.backbones.graphs.cache_folder import open_cache, private_temporary
from graft_server.domain.errors import StoreError

AS_ANOTHER_USER = """
import os, sys, logging
from pathlib import Path
import graft_server.backbones.graphs.cache_folder as module
import atexit, encodings.ascii, encodings.idna
logging.basicConfig(format="%(message)s")
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(12345)
os.environ["TMPDIR"] = sys.argv[2]
from graft_server.domain.errors import DomainError
try:
    cache = module.open_cache(Path(sys.argv[1]), lasting="lasting" in sys.argv)
except DomainError as error:
    print(error.reason, error.message)
else:
    print(cache.path)
    print(*sorted(p.name for p in (cache.path / "encoders").iterdir() if (p / "encoder.onnx").exists()))
    if "entry" in sys.argv:
        from graft_server.backbones.graphs.cache import EncoderCache
        with EncoderCache(cache.path).new_entry("made") as entry:
            (entry / "encoder.onnx").write_bytes(b"made")
    if "stay" not in sys.argv:
        cache.close()
"""

root_alone = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def another(cache: Path, temporary: Path, *words: str, group: int = 12345) -> tuple[list[str], str]:
    command = [sys.executable, "-c", AS_ANOTHER_USER, str(cache), str(temporary), str(group), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout.splitlines(), ended.stderr


@pytest.fixture
def open_folder() -> Path:
    """A folder that every user reaches; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.fixture
def cache(open_folder: Path) -> Path:
    folder = open_folder / "cache"
    before = os.umask(0o022)
    try:
        open_cache(folder)
        with EncoderCache(folder).new_entry("id") as entry:
            (entry / GRAPH).write_bytes(b"graph")
    finally:
        os.umask(before)
    return folder


@root_alone
def test_another_user_reads_a_cache_that_it_may_not_write_and_writes_beside_it(
    cache: Path, open_folder: Path
):
    temporary = open_folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o777)
    before = sorted(cache.rglob("*"))
    said, log = another(cache, temporary, "entry")
    assert said[0].startswith(f"{temporary}/graft-12345/caches/")
    assert said[1] == "id"
    assert f"{cache} cannot be written by user id 12345" in log
    assert "group (12345)" in log
    assert "--cache" in log
    assert not Path(said[0]).exists()
    assert sorted(cache.rglob("*")) == before


@root_alone
def test_what_a_killed_server_left_beside_a_cache_is_swept_by_the_next(cache: Path, open_folder: Path):
    left = Path(another(cache, open_folder, "stay")[0][0])
    assert left.exists()
    another(cache, open_folder)
    assert not left.exists()


@root_alone
def test_without_a_folder_for_temporary_files_the_error_names_folder_user_and_remedy(
    cache: Path, open_folder: Path
):
    code = AS_ANOTHER_USER.replace(
        'os.environ["TMPDIR"] = sys.argv[2]',
        "import tempfile; tempfile._candidate_tempdir_list = lambda: [sys.argv[2]]",
    )
    closed = open_folder / "closed"
    closed.mkdir(0o755)
    command = [sys.executable, "-c", code, str(cache), str(closed), "12345"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith(f"CACHE_UNUSABLE The cache's folder {cache} cannot be used by user id 12345")
    assert "nor is there a folder for temporary files" in said
    assert "chmod -R g+rwX" in said


@root_alone
def test_to_prepare_a_cache_that_cannot_be_written_is_refused(cache: Path, open_folder: Path):
    said, _ = another(cache, open_folder, "lasting")
    assert said[0].startswith("CACHE_UNUSABLE")


@root_alone
def test_a_cache_of_group_0_is_written_by_every_user_of_that_group(open_folder: Path):
    folder = open_folder / "shared"
    folder.mkdir()
    folder.chmod(0o2775)
    before = os.umask(0o022)
    try:
        open_cache(folder)
        with EncoderCache(folder).new_entry("id") as entry:
            (entry / GRAPH).write_bytes(b"graph")
    finally:
        os.umask(before)
    said, _ = another(folder, open_folder, "entry", group=0)
    assert said == [str(folder), "id"]
    made = folder / "encoders" / "made"
    assert made.stat().st_uid == 12345
    assert made.stat().st_mode & 0o2070 == 0o2070
    assert {it.stat().st_mode & 0o060 for it in made.iterdir()} == {0o060}


@root_alone
def test_an_entry_that_cannot_be_read_is_made_anew_elsewhere(cache: Path, open_folder: Path):
    for folder in (cache, *cache.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o777)
    (cache / "encoders" / "id").chmod(0o700)
    said, log = another(cache, open_folder, "entry")
    assert said[0].startswith(str(open_folder / "graft-12345"))
    assert str(cache / "encoders" / "id") in log


def test_a_file_in_its_place_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "absent"))
    with pytest.raises(StoreError) as raised:
        open_cache(tmp_path / "file")
    assert (
        f"The cache's folder {tmp_path / 'file'} cannot be used by user id {os.geteuid()}"
        in raised.value.message
    )


def test_a_folder_that_another_user_planted_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"graft-{os.geteuid()}"
    assert private_temporary() == planted
    planted.chmod(0o777)
    assert private_temporary() != planted
    planted.rmdir()
    planted.symlink_to(tmp_path)
    assert private_temporary() != planted
    assert cache_folder.private_temporary().stat().st_mode & 0o777 == 0o700
