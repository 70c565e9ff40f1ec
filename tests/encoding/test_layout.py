"""Which layout an encoder is driven with, and that it is remembered where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.encoding import layout as layouts


@pytest.fixture
def graph(encoder_cache: Path, backbone, tmp_path) -> Path:
    path = tmp_path / "entry" / "encoder.onnx"
    path.parent.mkdir()
    shutil.copy(EncoderCache(encoder_cache).graph(backbone.encoder_id), path)
    return path


@pytest.fixture
def tuned(graph: Path, backbone) -> Callable[..., layouts.Layout]:
    preprocessor = backbone.preprocessor()
    return partial(layouts.tuned, graph, device="cpu", cores=1, preprocessor=preprocessor, measure_s=0.1)


def test_a_layout_is_measured_once(tuned, monkeypatch):
    monkeypatch.setattr(layouts, "_UNDISTURBED", 1.0)  # whatever else this machine does
    layout = tuned()
    monkeypatch.delattr(layouts, "_measure")
    assert tuned() == layout
    assert layout.workers == layout.threads == 1


NONSENSE = (
    b"",
    b"\xff\x00",
    b"[]",
    b"null",
    b'{"workers": "many", "threads": 1, "budget": 64}',
    b'{"workers": 0, "threads": 1, "budget": 64}',
    b'{"workers": 100000, "threads": 1, "budget": 64}',
    b'{"workers": 1, "threads": -1, "budget": 192}',
    b'{"workers": 1, "threads": 1, "budget": 9000000000000000000000}',
    b'{"workers": true, "threads": 1.5, "budget": 64}',
    b"[" * 100_000,
)


def test_a_remembered_layout_of_nonsense_is_measured_again(graph, tuned, monkeypatch, caplog):
    measured = layouts.Layout(1, 1, 64)
    monkeypatch.setattr(layouts, "_measure", lambda *_: measured)
    memory = graph.parent / f"layout-{layouts._machine('cpu', 1)}.json"
    for nonsense in NONSENSE:
        memory.write_bytes(nonsense)
        caplog.clear()
        assert tuned() == measured
        assert "it is measured again" in caplog.text
    assert b'"budget": 64' in memory.read_bytes()


@pytest.mark.parametrize(
    "newer", [b'{"format": 2, "workers": 1, "threads": 1, "budget": 64}', b'{"format":2,"workers":{}}']
)
def test_a_layout_that_a_newer_release_remembers_stays_as_it_is(newer, graph, tuned, monkeypatch, caplog):
    measured = layouts.Layout(1, 1, 192)
    monkeypatch.setattr(layouts, "_measure", lambda *_: measured)
    memory = graph.parent / f"layout-{layouts._machine('cpu', 1)}.json"
    memory.write_bytes(newer)
    assert tuned() == measured
    assert memory.read_bytes() == newer
    assert "newer release" in caplog.text
    more = b'{"format": 1, "workers": 1, "threads": 1, "budget": 64, "more": [1]}'
    memory.write_bytes(more)
    assert tuned() == layouts.Layout(1, 1, 64)


@pytest.mark.slow
def test_a_layout_that_cannot_be_remembered_is_used_all_the_same(graph, tuned, caplog, monkeypatch):
    monkeypatch.setattr(layouts, "_UNDISTURBED", 1.0)
    # Whoever runs the tests may be allowed to write everywhere, but not a file in the place of a folder.
    (graph.parent / f"layout-{layouts._machine('cpu', 1)}.json" / "taken").mkdir(parents=True)
    assert tuned().budget > 0
    assert "cannot be remembered" in caplog.text


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="tells how long a thread waits")
@pytest.mark.slow
@pytest.mark.slow
def test_what_was_measured_beside_others_is_not_remembered(graph, tuned, caplog):
    mine = os.sched_getaffinity(0)
    one = {min(mine)}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(other.pid, one)
        os.sched_setaffinity(0, one)
        layout = tuned(measure_s=layouts.MEASURE_S)
    finally:
        os.sched_setaffinity(0, mine)
        other.kill()
        other.wait()
    assert layout.workers == layout.threads == 1
    assert "measured again at the next start" in caplog.text
    assert not list(graph.parent.glob("layout-*"))
