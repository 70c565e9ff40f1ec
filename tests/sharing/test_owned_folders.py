"""Folders that belong to a process: gone with it, or swept by others once it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from graft_server.sharing.owned_folders import OwnedFolder, make_folders, share, sweep

MAKE_ONE = """
import sys
from pathlib import Path
from graft_server.sharing.owned_folders import scratch
folder = scratch(Path(sys.argv[1]))
(folder / "file").write_text("left")
print(folder, flush=True)
if input() == "end":
    sys.exit()
"""


def process(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", MAKE_ONE, str(parent)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout
    return started, Path(started.stdout.readline().strip())


def test_what_a_killed_process_left_is_swept_and_a_living_one_keeps_its_own(tmp_path: Path):
    parent = tmp_path / "parent"
    killed, left = process(parent)
    with killed:
        killed.kill()
    living, kept = process(parent)
    with living:
        sweep(parent)
        assert not left.exists()
        assert (kept / "file").read_text() == "left"
        living.communicate("end\n")
    assert list(parent.iterdir()) == []


def test_a_folder_without_a_lock_goes_once_nobody_wrote_to_it_for_a_day(tmp_path: Path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    long_ago = time.time() - 25 * 3600
    os.utime(tmp_path / "old", (long_ago, long_ago))
    sweep(tmp_path)
    assert [it.name for it in tmp_path.iterdir()] == ["new"]


def test_what_is_made_is_for_the_group_that_the_folder_above_is_for(tmp_path: Path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder, mode in ((shared, 0o2775), (own, 0o755)):
        folder.mkdir()
        folder.chmod(mode)
    before = os.umask(0o022)
    try:
        for parent, folder_bits, file_bits in ((shared, 0o2070, 0o060), (own, 0o050, 0o040)):
            make_folders(parent / "a" / "b")
            folder = OwnedFolder(parent / "a" / "b")
            file = folder.path / "file"
            file.touch()
            share(file)
            for made in (parent / "a", parent / "a" / "b", folder.path):
                assert made.stat().st_mode & 0o2070 == folder_bits
            assert file.stat().st_mode & 0o070 == file_bits
            folder.close()
    finally:
        os.umask(before)
