# syntax=docker/dockerfile:1

# The Graft server.
#
#   docker build --tag graft .                          CUDA 13, for x86-64 (a driver of the 580 series or newer)
#   docker build --tag graft --build-arg VARIANT=cpu .  the CPU only
#
# It runs as user 65532, as any other user id in group 0, and with a read-only root: see docs/deployment.md.
#
# CUDA and cuDNN come as wheels, the same ones for onnxruntime and torch. An image with a CUDA runtime of its own
# would hold them twice. What the build stage does is in deploy/docker/, where it is tested without a container
# engine (scripts/test-image.sh).

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG VARIANT=cuda
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deploy/docker deploy/docker
COPY client client
COPY server server
RUN --mount=type=cache,target=/root/.cache deploy/docker/install.sh /opt/graft "$VARIANT"
# The default backbone's encoder is exported here, so that a container starts quickly and without a network.
# OpenShift runs it as a user id of its own in group 0, so all in the cache is that group's too, and what is made in it.
RUN install --directory --group=0 --mode=2775 /var/cache/graft \
 && /opt/graft/bin/graft-server prepare --cache /var/cache/graft \
 && chmod --recursive g=u /var/cache/graft \
 && find /var/cache/graft -type d -exec chmod g+s {} +
RUN deploy/docker/prune.sh /opt/graft "$VARIANT"

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="Graft" \
      org.opencontainers.image.description="Stream labelled examples in, get a served classifier back" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 65532 --user-group --home-dir /var/lib/graft --shell /usr/sbin/nologin graft \
 && install --directory --owner=graft --group=0 --mode=2770 /var/lib/graft
COPY --from=build /opt/graft /opt/graft
COPY --from=build --chown=65532:0 /var/cache/graft /var/cache/graft

# auto takes the GPU that the container is given, and the CPU where it is given none; to refuse to start without a
# GPU: GRAFT_DEVICE=cuda. The NVIDIA_ variables ask NVIDIA's container runtime for the driver.
ENV PATH=/opt/graft/bin:$PATH \
    GRAFT_LISTEN=0.0.0.0:50051 \
    GRAFT_STORE=/var/lib/graft \
    GRAFT_CACHE=/var/cache/graft \
    GRAFT_DEVICE=auto \
    HF_HOME=/var/cache/graft/huggingface \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
WORKDIR /var/lib/graft
VOLUME /var/lib/graft
EXPOSE 50051
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["graft-server", "health", "--target", "127.0.0.1:50051"]
ENTRYPOINT ["graft-server"]
CMD ["serve"]
