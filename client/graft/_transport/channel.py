"""How the client connects: targets, gRPC's settings, and what gRPC may retry by itself."""

from __future__ import annotations

import json
import re
from typing import Final

from graft._records.examples import MAX_MESSAGE_BYTES

DEFAULT_TARGET: Final = "127.0.0.1:50051"
DEFAULT_PORT: Final = 50051

# A repeat of these can be told that somebody else did it (NOT_FOUND, ALIAS_MOVED) when it was the first
# try of the same call. Streams are not gRPC's to repeat: what was received or sent counts for where they go on,
# and a stream of answers that gRPC is about to repeat waits for ever if its server is gone by then.
_RETRIED: Final = {
    "graft.v1.AdaptationService": ("GetAdaptation", "ListAdaptations", "CancelAdaptation"),
    "graft.v1.PredictionService": ("Predict",),
    "graft.v1.ModelService": (
        "ListModels",
        "GetModel",
        "ListVersions",
        "GetVersion",
        "ListBackbones",
    ),
    "grpc.health.v1.Health": ("Check",),
}

_SERVICE_CONFIG: Final = {
    # A server that is added to the name is found, and one that is draining is left.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method}
                for service, methods in _RETRIED.items()
                for method in methods
            ],
            # Five is the most that gRPC allows: about 3 s in all. Only UNAVAILABLE, which says that the
            # server did not do it; overload comes with a delay of its own, which the client honours.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

KEEP_ALIVE_S: Final = 20.0
"""How often a connection that is silent is asked whether it is still there."""

_OPTIONS: Final[list[tuple[str, str | int]]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again soon; gRPC's own ceiling is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

_SCHEME = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|vsock|xds|passthrough):")
_PORT = re.compile(r":\d+$")


def channel_options(keep_alive_s: float) -> list[tuple[str, str | int]]:
    """Settings of a channel that notices a peer which vanished without a word within 1.5 times `keep_alive_s`."""
    return [
        *_OPTIONS,
        ("grpc.keepalive_time_ms", round(keep_alive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(keep_alive_s * 500)),
        # Waits for the answer to the ping itself: a minute by default, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", round(keep_alive_s * 500)),
    ]


def channel_target(target: str) -> str:
    """A target in gRPC's syntax: "host", "host:port" and "[ipv6]:port" become "dns:///host:port".

    Raises:
        ValueError: The target is empty.
    """
    if not target.strip():
        raise ValueError(f"the target is empty; give HOST:PORT, for example {DEFAULT_TARGET!r}")
    if _SCHEME.match(target):
        return target
    if target.count(":") > 1 and not target.startswith("["):
        target = f"[{target}]"
    if not _PORT.search(target):
        target = f"{target}:{DEFAULT_PORT}"
    return f"dns:///{target}"
