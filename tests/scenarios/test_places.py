"""The server where others put it: under any user id, beside what a killed one left, on a damaged cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import graft
from graft_server.backbones.graphs.cache import EncoderCache

UID = 12345


@pytest.fixture
def small_cache(tmp_path: Path, encoder_cache: Path, backbone) -> Path:
    """A cache of the test's own with the default encoder in it."""
    entry = EncoderCache(encoder_cache).graph(backbone.encoder_id).parent
    shutil.copytree(entry, tmp_path / "cache" / "encoders" / entry.name)
    return tmp_path / "cache"


@pytest.fixture
def bare() -> Iterator[Path]:
    """A folder that every user can write to; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.mark.slow
@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user"
)
@pytest.mark.parametrize("given", [True, False])
def test_a_user_without_home_or_passwd_entry_adapts_predicts_and_exports(
    bare: Path, small_cache: Path, intents, given: bool
):
    # It may read everything, as this interpreter may lie in another user's home, and write to no one's folders.
    rights = "+dac_read_search"
    user = ["setpriv", f"--reuid={UID}", "--regid=0", "--clear-groups", f"--inh-caps={rights}"]
    user += [f"--ambient-caps={rights}", f"--bounding-set=-all,{rights}"]
    own = bare / f"graft-{UID}"
    own.mkdir(0o700)
    shutil.copytree(small_cache, own / "cache")
    for path in (own, *own.rglob("*")):
        os.chown(path, UID, 0)
    serve = [
        sys.executable,
        "-m",
        "graft_server.cli",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--measure-seconds",
        "0",
    ]
    cache = ["--cache", str(small_cache)] if given else []
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(bare), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*user, *serve, "--store", str(bare / "store"), *cache]
    before = sorted(small_cache.rglob("*"))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        target = server.stdout.readline().removeprefix("listening on ").strip()
        with graft.Client(target) as client:
            client.adapt("tests/place", intents[:60])
            assert client.predict("tests/place", [intents[0][0]])[0].label
            client.export("tests/place", bare / "bundle")
        server.terminate()
        assert server.wait(timeout=60) == 0
    assert sorted(small_cache.rglob("*")) == before
    assert {it.stat().st_mode & 0o777 for it in (bare / "store").rglob("*") if it.is_file()} == {0o600}
    assert {it.name for it in bare.iterdir()} == {own.name, "store", "bundle"}
    assert list((own / "caches").iterdir() if given else (own / "cache" / "temporary").iterdir()) == []


@pytest.mark.slow
def test_a_bundle_that_a_killed_server_was_sending_goes_at_the_next_start(serve, small_cache, connect, few):
    from graft.v1 import model_pb2  # noqa: PLC0415

    server = serve("--cache", str(small_cache))
    wire = connect(server)
    wire.publish("tests/killed", few)
    pieces = wire.model.ExportModel(model_pb2.ExportModelRequest(model="tests/killed"), timeout=60)
    next(iter(pieces))
    handed_over = small_cache / "handed-over"
    left = list(handed_over.glob("*/*/model.onnx"))
    assert left
    server.kill()
    again = serve("--cache", str(small_cache))
    with graft.Client(again.target) as client:
        client.export("tests/killed", small_cache.parent / "bundle")
        while left[0].exists():
            client.models()
    assert again.stop() == 0
    assert [it.name for it in handed_over.iterdir()] == ["identity"]
    assert list((small_cache / "temporary").iterdir()) == []


@pytest.mark.slow
def test_flipped_weights_in_the_cache_are_exported_anew_and_change_no_answer(
    serve, small_cache, backbone, few
):
    server = serve("--cache", str(small_cache))
    with graft.Client(server.target) as client:
        client.adapt("tests/flipped", few)
        before = client.predict("tests/flipped", [few[0][0]])[0].scores
    assert server.stop() == 0
    graph = EncoderCache(small_cache).graph(backbone.encoder_id)
    with graph.open("r+b") as file:
        file.seek(graph.stat().st_size // 2)
        file.write(bytes(64))
    again = serve("--cache", str(small_cache))
    with graft.Client(again.target) as client:
        after = client.predict("tests/flipped", [few[0][0]])[0].scores
    assert after == before
    assert again.stop() == 0
    assert any("encoder.onnx in the cache is damaged" in line for line in again.log)
