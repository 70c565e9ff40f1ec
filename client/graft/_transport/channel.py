"""How the client connects: gRPC's settings, and which unary calls may be made again."""

from __future__ import annotations

import json
from typing import Final

from graft._records.inputs.examples import MAX_MESSAGE_BYTES

# A repeat of what is missing here can be told that somebody else did it (NOT_FOUND, ALIAS_MOVED) when it was the first
# try of the same call.
_REPEATABLE: Final = {
    "graft.v1.AdaptationService": ("GetAdaptation", "ListAdaptations", "CancelAdaptation"),
    "graft.v1.PredictionService": ("Predict",),
    "graft.v1.ModelService": (
        "ListModels",
        "GetModel",
        "ListVersions",
        "GetVersion",
        "ListExamples",
        "ListBackbones",
    ),
    "grpc.health.v1.Health": ("Check",),
}
REPEATABLE_PATHS: Final = frozenset(
    f"/{service}/{method}" for service, methods in _REPEATABLE.items() for method in methods
)
"""The unary methods that may be called again where nobody can say whether the first call was carried out."""

# A server that is added to the name is found, and one that is draining is left.
_SERVICE_CONFIG: Final[dict[str, object]] = {"loadBalancingConfig": [{"round_robin": {}}]}

KEEP_ALIVE_S: Final = 20.0
"""How often a connection that is silent is asked whether it is still there."""

CONNECT_TIMEOUT_S: Final = 20.0
"""How long a first answer is waited for."""

_OPTIONS: Final[list[tuple[str, str | int]]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # Whether and how a call is made again is the client's to decide: what a stream has received or sent counts for
    # where it goes on, and a stream of answers that gRPC is about to repeat waits for ever if its server is gone by
    # then.
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again soon; gRPC's own ceiling is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def channel_options(
    keep_alive_s: float, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, direct: bool = False
) -> list[tuple[str, str | int]]:
    """The settings of a channel.

    Args:
        keep_alive_s: A peer that vanishes without a word is noticed within 1.5 times this, in seconds.
        connect_timeout_s: How long one attempt to connect, or to resolve the name, may take, in seconds.
        direct: Whether proxies of the environment are passed over.
    """
    return [
        *_OPTIONS,
        ("grpc.enable_http_proxy", 0 if direct else 1),
        ("grpc.min_reconnect_backoff_ms", round(connect_timeout_s * 1000)),
        ("grpc.dns_ares_query_timeout", round(connect_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", round(keep_alive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(keep_alive_s * 500)),
        # Waits for the answer to the ping itself: a minute by default, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", round(keep_alive_s * 500)),
    ]
