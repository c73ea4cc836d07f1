# omni2-engine as a server, for the CPU or for NVIDIA GPUs:
#   docker build -t omni2-engine .
#   docker build -t omni2-engine:gpu --build-arg DEVICE=gpu .
# Engines come in as a volume; the key is what clients have to send:
#   docker run --rm -p 8000:8000 -e OMNI2_API_KEY=… -v "$PWD/engines:/engines:ro" omni2-engine serve /engines/llama-omni2-0.5b
# docs/running.md says the rest; serve/deploy/ has compose, Kubernetes, nginx and Caddy.
ARG DEVICE=cpu

FROM ubuntu:24.04 AS cpu
ENV EXTRAS=export,serve

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS gpu
ENV EXTRAS=export,serve,tensorrt

# hadolint ignore=DL3006
FROM ${DEVICE} AS python
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY licenses licenses
COPY cpp cpp
COPY kernels kernels
COPY engine engine
COPY export export
COPY bench bench
COPY serve serve
RUN python3 -m venv /opt/omni2 && /opt/omni2/bin/pip install --no-cache-dir ".[$EXTRAS]"

FROM python
RUN useradd --uid 10001 --create-home omni2
COPY --from=build /opt/omni2 /opt/omni2
ENV PATH=/opt/omni2/bin:$PATH
USER 10001
WORKDIR /home/omni2
EXPOSE 8000
# A container that has just started compiles and warms up: no answer counts as unhealthy only after ten minutes.
HEALTHCHECK --interval=15s --timeout=3s --start-period=10m --retries=4 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# SIGTERM drains the server: it takes no new sessions, finishes its answers and ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["omni2-engine"]
CMD ["doctor"]
