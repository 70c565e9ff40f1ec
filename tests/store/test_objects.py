"""Sealed objects, created once, on a local folder and in memory; killed and racing writers."""

import errno
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from graft_server.domain.errors import CorruptError, StoreError
from graft_server.store.objects import naming
from graft_server.store.objects.objects import ObjectExistsError, ObjectMissingError, Objects


@pytest.fixture(params=["folder", "memory"])
def objects(request, tmp_path):
    return Objects.open(tmp_path if request.param == "folder" else "memory:///")


def python(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_object_reads_back(objects):
    for data in (b"", b"payload", b"\n#sealed\n", bytes(range(256)) * 1000):
        objects.create(f"a/{len(data)}", data)
        assert objects.get(f"a/{len(data)}") == data


def test_an_object_is_created_once(objects):
    objects.create("a/b", b"first")
    with pytest.raises(ObjectExistsError):
        objects.create("a/b", b"second")
    assert objects.get("a/b") == b"first"


def test_a_missing_object_is_named(objects):
    with pytest.raises(ObjectMissingError, match="a/missing"):
        objects.get("a/missing")
    assert not objects.exists("a/missing")


def test_keys_and_folders_are_listed_sorted(objects):
    for key in ("a/b/2", "a/b/1", "a/c/1", "ab/1"):
        objects.create(key, b"")
    assert objects.keys("a/") == ["a/b/1", "a/b/2", "a/c/1"]
    assert objects.folders("a/") == ["b", "c"]
    assert objects.keys("none/") == objects.folders("none/") == []
    assert objects.exists("a/b/1")


def test_deleting_twice_is_harmless(objects):
    objects.create("a/1", b"")
    objects.delete(["a/1", "a/2"])
    objects.delete(["a/1"])
    assert objects.keys("a/") == []


def test_every_truncation_is_noticed(tmp_path):
    objects = Objects.open(tmp_path)
    objects.create("a", b"some payload")
    whole = (tmp_path / "a").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:size])
        with pytest.raises(CorruptError, match="Object a ") as caught:
            objects.get("a")
        assert caught.value.metadata == {"object": "a"}


def test_every_flipped_bit_is_noticed(tmp_path):
    objects = Objects.open(tmp_path)
    objects.create("a", b"some payload")
    whole = (tmp_path / "a").read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a").write_bytes(flipped)
        with pytest.raises(CorruptError):
            objects.get("a")


def test_json_objects_read_with_cat(tmp_path):
    Objects.open(tmp_path).create_json("a.json", {"label": "grün"})
    assert (tmp_path / "a.json").read_text().splitlines()[0] == '{"format":1,"label":"grün"}'


def test_an_object_that_is_no_json_is_corrupt(objects):
    objects.create("a.json", b'{"n":')
    with pytest.raises(CorruptError, match=r"a\.json"):
        objects.get_json("a.json", dict[str, int])


def test_our_own_earlier_attempt_counts_as_success(monkeypatch):
    objects = Objects.open("memory:///")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "ab" * size)
    objects.create("a", b"payload")
    # What a retry inside a bucket's client looks like: the same bytes again, refused as existing.
    objects.create("a", b"payload")


RACE = """
import sys
from graft_server.store.objects.objects import ObjectExistsError, Objects
objects = Objects.open(sys.argv[1])
print("ready", flush=True)
won = []
for n in range(40):
    try:
        objects.create(f"new/{n}", sys.argv[2].encode())
        won.append(n)
    except ObjectExistsError:
        pass
print(*won)
"""


def test_one_of_eight_racing_processes_wins_each_key(tmp_path):
    processes = [python(RACE, tmp_path, name) for name in "abcdefgh"]
    wins = {}
    for name, process in zip("abcdefgh", processes, strict=True):
        with process:
            output = process.communicate()[0].split()
            assert output.pop(0) == "ready"
            for n in output:
                assert wins.setdefault(int(n), name) == name
    objects = Objects.open(tmp_path)
    assert {n: objects.get(f"new/{n}").decode() for n in range(40)} == wins


def test_one_of_eight_racing_threads_wins(objects):
    def attempt(n):
        try:
            objects.create("new/folder/key", str(n).encode())
        except ObjectExistsError:
            return None
        return n

    with ThreadPoolExecutor(8) as pool:
        wins = [n for n in pool.map(attempt, range(8)) if n is not None]
    assert [objects.get("new/folder/key").decode()] == list(map(str, wins))


CREATE_FOR_EVER = """
import itertools, sys
from graft_server.store.objects.objects import Objects
objects = Objects.open(sys.argv[1])
for n in itertools.count():
    objects.create(f"{sys.argv[2]}/{n}", b"x" * 200_000)
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_only_whole_objects_and_none_acknowledged_is_lost(tmp_path):
    for attempt in range(8):
        with python(CREATE_FOR_EVER, tmp_path, attempt) as process:
            for _ in range(attempt + 1):
                process.stdout.readline()
            process.kill()
            acknowledged = [attempt, *map(int, process.stdout.read().split())]
        objects = Objects.open(tmp_path)
        names = objects.keys(f"{attempt}/")
        assert len(names) > max(acknowledged)
        assert all(objects.get(name) == b"x" * 200_000 for name in names)
    assert list((tmp_path / ".writing").iterdir()) == []


WRITE_A_TEMPORARY = """
import sys
from pathlib import Path
from graft_server.store.objects import local_folder
path, fd = local_folder._open_temporary(Path(sys.argv[1]) / ".writing")
print(path, flush=True)
input()
"""


def test_temporaries_are_swept_when_their_writer_is_dead_and_only_then(tmp_path):
    Objects.open(tmp_path)
    command = [sys.executable, "-c", WRITE_A_TEMPORARY, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        temporary = tmp_path / process.stdout.readline().strip()
        objects = Objects.open(tmp_path)
        assert temporary.exists()
        assert objects.keys("") == []
        process.kill()
    Objects.open(tmp_path)
    assert not temporary.exists()


FULL = """
import resource, sys
from graft_server.domain.errors import StoreError
from graft_server.store.objects.objects import Objects
objects = Objects.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    objects.create("big", b"x" * 5000)
except StoreError as error:
    print(error.reason, error.message)
objects.create("small", b"x")
"""


def test_a_full_store_says_so_and_shows_nothing_of_the_object(tmp_path):
    with python(FULL, tmp_path) as process:
        said = process.communicate()[0]
    assert process.returncode == 0
    assert said.startswith("STORE_FULL")
    assert str(tmp_path) not in said
    assert Objects.open(tmp_path).keys("") == ["small"]
    assert list((tmp_path / ".writing").iterdir()) == []


FORBIDDEN = """
import os, sys
from pathlib import Path
from graft_server.domain.errors import StoreError
from graft_server.store.objects.objects import Objects
objects = Objects.open(sys.argv[1])
objects.create("a/1", b"")
if os.geteuid() == 0:
    os.seteuid(65534)
else:
    Path(sys.argv[1], "a").chmod(0)
for attempt in (lambda: objects.create("a/2", b""), lambda: objects.get("a/1")):
    try:
        attempt()
    except StoreError as error:
        print(error.reason, error.message)
"""


def test_lost_permission_says_so(tmp_path):
    (tmp_path / "store").mkdir(mode=0o700)
    with python(FORBIDDEN, tmp_path / "store") as process:
        said = process.communicate()[0].splitlines()
    assert [it.split()[0] for it in said] == ["STORE_FORBIDDEN", "STORE_FORBIDDEN"]
    assert str(tmp_path) not in "".join(said)


def test_a_store_whose_folder_is_gone_says_so(tmp_path):
    objects = Objects.open(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError) as caught:
        objects.create("a", b"")
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert str(tmp_path) not in caught.value.message


def no_links(number: int) -> Any:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_hard_links_an_object_is_created_once_all_the_same(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", no_links(number))
    objects = Objects.open(tmp_path)
    objects.create("a/b", b"first")
    with pytest.raises(ObjectExistsError):
        objects.create("a/b", b"second")
    assert objects.get("a/b") == b"first"
    assert list((tmp_path / ".writing").iterdir()) == []


def test_a_file_system_that_can_neither_link_nor_rename_without_replacing_is_refused_at_once(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "link", no_links(errno.EPERM))
    monkeypatch.setattr(naming, "_C", object())
    with pytest.raises(StoreError) as raised:
        Objects.open(tmp_path)
    assert "can neither link files nor rename them without replacing others" in raised.value.message
    assert str(tmp_path) in raised.value.message
    assert list((tmp_path / ".writing").iterdir()) == []


def modes(root: Path) -> set[int]:
    return {path.stat().st_mode & 0o7777 for path in root.rglob("*")}


def test_files_and_folders_are_for_the_servers_user_alone(tmp_path):
    before = os.umask(0)
    try:
        Objects.open(tmp_path / "store").create("a/b/c", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "store").stat().st_mode & 0o7777 == 0o700
    assert modes(tmp_path / "store") == {0o700, 0o600}


def test_a_root_that_its_group_shares_is_shared_by_all_that_is_made(tmp_path):
    tmp_path.chmod(0o2770)
    before = os.umask(0o077)
    try:
        Objects.open(tmp_path).create("a/b/c", b"")
    finally:
        os.umask(before)
    assert modes(tmp_path) == {0o2770, 0o660}


def test_stray_names_in_the_folder_are_passed_over_and_said(tmp_path, caplog):
    objects = Objects.open(tmp_path)
    objects.create("models/a", b"")
    for name in (b"models/\xff\xfe", b"models/new\nline"):
        stray = tmp_path / os.fsdecode(name)
        stray.mkdir()
        (stray / "file").touch()
    (tmp_path / "models" / "nowhere").symlink_to("/nonexistent")
    assert objects.keys("models/") == ["models/a"]
    assert objects.folders("models/") == []
    assert "\\udcff" in caplog.text
    assert "new\\nline" in caplog.text
