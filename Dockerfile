# omni2-engine on an NVIDIA GPU: docker build -t omni2-engine . && docker run --rm --gpus all omni2-engine doctor
# Engines and checkpoints come in as a volume:
#   docker run --rm --gpus all -v "$PWD/engines:/home/omni2/engines" omni2-engine stream engines/llama-omni2-7b question.wav
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS build
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
ARG EXTRAS=bench,tensorrt
RUN python3 -m venv /opt/omni2 && /opt/omni2/bin/pip install --no-cache-dir ".[$EXTRAS]"

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home omni2
COPY --from=build /opt/omni2 /opt/omni2
ENV PATH=/opt/omni2/bin:$PATH
USER omni2
WORKDIR /home/omni2
ENTRYPOINT ["omni2-engine"]
CMD ["doctor"]
