"""Server reflection, in the two versions that tools ask for: v1, and v1alpha for older tools.

Their messages are the same but for the name of their package. `grpcio-reflection` has v1alpha alone; so v1 is described
by a copy of it under the other name, and answered with the same bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from graft_server.frontends.grpc.calls import Calls
from graft_server.frontends.grpc.errors import Context
from graft_server.frontends.grpc.handlers import add_service, resumes

_ALPHA = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_ALPHA_PACKAGE = reflection_pb2.DESCRIPTOR.package
_PACKAGE = "grpc.reflection.v1"
_FILE = "grpc/reflection/v1/reflection.proto"
NAMES = (f"{_PACKAGE}.{_ALPHA.name}", _ALPHA.full_name)
"""The services' full names."""


class ReflectionService:
    """Implements grpc.reflection.v1.ServerReflection and the same of v1alpha."""

    def __init__(self, services: Sequence[str]) -> None:
        """Describes the services of these full names, and what they refer to."""
        self._answers = reflection.aio.ReflectionServicer(services)

    @resumes
    async def ServerReflectionInfo(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: Context
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answers each question for a file, a symbol, or the list of services."""
        async for response in self._answers.ServerReflectionInfo(requests, context):
            yield response


def add_reflection(server: grpc.aio.Server, services: Sequence[str], calls: Calls) -> None:
    """Adds reflection on the services, and on itself, to a server."""
    _describe()
    servicer = ReflectionService((*services, *NAMES))
    for name in NAMES:
        add_service(server, servicer, _ALPHA, calls, name)


def _describe() -> None:
    """Puts v1 into the pool of descriptors that reflection answers from."""
    described = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(described)
    described.name, described.package = _FILE, _PACKAGE
    for message in described.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _renamed(field.type_name)
    for service in described.service:
        for method in service.method:
            method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    descriptor_pool.Default().AddSerializedFile(described.SerializeToString())


def _renamed(type_name: str) -> str:
    return type_name.replace(f".{_ALPHA_PACKAGE}.", f".{_PACKAGE}.")
