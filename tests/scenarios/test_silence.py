"""What the server's processes and a bundle's runner reach: no host, no name look-up, no file beside store and cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import start_server

import graft

pytestmark = pytest.mark.slow

LOOK_UPS = ("/etc/resolv.conf", "/etc/hosts", "/etc/services")
MADE = re.compile(r"(?:openat|open|creat|mkdir|mkdirat|mknod|symlink|symlinkat)\((.*)\) += (\d+)")
REACHED = re.compile(r"(?:connect|sendto|sendmsg)\(.*sa_family=AF_INET6?, ")
HOMES = {
    "HOME": ".",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "TMPDIR": "tmp",
}


def watching(trace: Path) -> list[str]:
    """The command that writes down what a process and its children ask of the system; none where it is absent."""
    if shutil.which("strace") is None:
        return []
    calls = "trace=connect,sendto,sendmsg,open,openat,creat,mkdir,mkdirat,mknod,symlink,symlinkat"
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", calls, "-o", str(trace)]


def homes(folder: Path) -> dict[str, str]:
    """Variables that lead all that a library keeps for its user into empty folders."""
    found = {variable: folder / name for variable, name in HOMES.items()}
    for place in found.values():
        place.mkdir(parents=True, exist_ok=True)
    return {variable: str(place) for variable, place in found.items()}


def check_silent(trace: Path, *allowed: Path) -> None:
    if not trace.exists():
        return
    reached, looked_up, made = [], [], []
    for line in trace.read_text("utf-8", "replace").splitlines():
        if REACHED.search(line):
            reached.append(line)
        looked_up += [it for it in LOOK_UPS if f'"{it}"' in line]
        match = MADE.search(line)
        if (
            match
            and ("O_CREAT" in line or "open" not in line)
            and (paths := re.findall(r'"([^"]*)"', match[1]))
        ):
            path = Path(paths[-1])
            if not any(path.is_relative_to(it) for it in (*allowed, Path("/dev"), Path("/proc"))):
                made.append(line)
    assert (reached, looked_up, made) == ([], [], [])
    assert "O_CREAT" in trace.read_text("utf-8", "replace") or len(allowed) < 2, "nothing was watched"


def test_start_adapt_tune_predict_export_and_a_bundles_runner_reach_nobody(
    tmp_path: Path, text_checkpoints: Path, intents: list[tuple[str, str]]
):
    home, store, cache, trace = (tmp_path / it for it in ("home", "store", "cache", "server.trace"))
    environment = {**homes(home), "PYTHONDONTWRITEBYTECODE": "1", "GRAFT_CACHE": "", "OMP_NUM_THREADS": "1"}
    before = sorted(home.rglob("*"))
    server = start_server(
        store,
        f"--backbone=small={text_checkpoints / 'bert'}",
        "--cache",
        str(cache),
        within=watching(trace),
        **environment,
    )
    with graft.Client(server.target) as client:
        rows = intents[:120]
        client.adapt("tests/silent", rows)
        tuned = client.adapt(
            "tests/silent", rows, method="partial", time_budget=60, fine_tuning=graft.FineTuning(epochs=1)
        )
        assert tuned.report.tuning is not None
        client.predict("tests/silent", [rows[0][0]])
        client.export("tests/silent", tmp_path / "bundle")
    assert server.stop() == 0, "".join(server.log)
    check_silent(trace, store, cache)
    assert sorted(home.rglob("*")) == before

    trace = tmp_path / "runner.trace"
    runner = [sys.executable, "-I", "-B", str(tmp_path / "bundle" / "predict.py"), rows[0][0]]
    told = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([*watching(trace), *runner], check=True, env={**told, **homes(home)}, timeout=120)
    check_silent(trace)
    assert sorted(home.rglob("*")) == before
