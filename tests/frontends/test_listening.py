"""Where a server listens: several addresses, UNIX sockets, IPv6, and the true reason where it cannot."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft_server.domain.errors import StoreError
from graft_server.frontends.grpc.listening import require_usable


def why(address: str) -> StoreError:
    with pytest.raises(StoreError) as raised:
        require_usable(address)
    assert raised.value.message.startswith(f"The address {address} cannot be listened on: ")
    assert "\n" not in raised.value.message
    return raised.value


def test_a_port_in_use_is_said_also_where_another_address_of_the_host_is_free():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            error = why(f"{host}:{port}")
            assert error.reason == "ADDRESS_IN_USE"
            assert "another process listens there" in error.message


def test_an_unknown_host_is_said():
    assert "the host nowhere.invalid cannot be found (" in why("nowhere.invalid:0").message


def test_an_address_of_another_machine_is_said():
    assert "this machine has no such address" in why("192.0.2.1:0").message


def test_a_port_that_needs_a_privilege_is_said():
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if least <= 81:
        pytest.skip("every port is open to everybody here")
    code = """
import os, socket, encodings.idna
from graft_server.domain.errors import StoreError
from graft_server.frontends.grpc.listening import require_usable
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(12345)
    os.setuid(12345)
try:
    require_usable("127.0.0.1:81")
except StoreError as error:
    print(error.message)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    uid = os.getuid() or 12345
    assert f"port 81 needs a privilege (CAP_NET_BIND_SERVICE) that user id {uid} lacks" in said.stdout


def test_a_socket_file_that_nobody_listens_on_is_removed_and_one_in_use_stays(tmp_path: Path):
    path = tmp_path / "graft.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert why(f"unix:{path}").reason == "ADDRESS_IN_USE"
        assert path.exists()
    require_usable(f"unix:{path}")
    assert not path.exists()


def test_a_path_that_cannot_be_a_socket_is_said(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("kept")
    assert "a file lies there that is no socket" in why(f"unix:{file}").message
    assert file.read_text() == "kept"
    assert f"there is no folder {tmp_path / 'absent'}" in why(f"unix:{tmp_path}/absent/socket").message


def test_it_listens_on_several_addresses_says_each_and_takes_its_socket_away(serve, tmp_path: Path):
    path = tmp_path / "graft.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    addresses = ["127.0.0.1:0", f"unix:{path}"]
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        addresses.append("[::1]:0")
    server = serve(*(f"--listen={it}" for it in addresses[1:]))
    assert server.process.stdout is not None
    said = [server.target, *(server.process.stdout.readline().strip() for _ in addresses[1:])]
    listening = [it.removeprefix("listening on ") for it in said]
    assert listening[1] == f"unix:{path}"
    assert all(it.startswith("[::1]:") and not it.endswith(":0") for it in listening[2:])
    for target in listening:
        with grpc.insecure_channel(target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert server.stop() == 0
    assert not path.exists()


def test_closed_standard_streams_are_no_reason_to_fail(tmp_path: Path, encoder_cache: Path):
    path = tmp_path / "graft.sock"
    serve = [sys.executable, "-m", "graft_server.cli", "serve", "--listen", f"unix:{path}"]
    flags = ["--store", str(tmp_path / "store"), "--measure-seconds", "0", "--cache", str(encoder_cache)]
    server = subprocess.Popen(["sh", "-c", f"exec {shlex.join([*serve, *flags])} <&- >&- 2>&-"])
    try:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        led = {Path(f"/proc/{server.pid}/fd/{number}").readlink() for number in range(3)}
        assert led == {Path("/dev/null")}
        server.terminate()
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
        server.wait()
