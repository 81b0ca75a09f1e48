# diffgen in a container, for a CPU or for NVIDIA GPUs. docs/docker.md says how to run it.
#
#   docker build -t diffgen:cpu .
#   docker build -t diffgen:cuda --build-arg DEVICE=cuda .
ARG PYTHON=3.12
ARG DEVICE=cpu

FROM python:${PYTHON}-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What OpenCV's wheel links to. Debian keeps only its newest versions, so a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir 'uv==0.13.*'
# Models, facts about datasets, settings: a volume, so that a new container does not fetch and read all again. Any user may
# write there, because a run folder on the host is best written by the host's own user (--user).
ENV HOME=/cache USER=diffgen HF_HOME=/cache/huggingface DIFFGEN_CACHE=/cache/diffgen YOLO_CONFIG_DIR=/cache/ultralytics \
    PYTHONUNBUFFERED=1
RUN useradd --uid 1000 --home-dir /cache --no-create-home diffgen \
 && mkdir -p /cache /work \
 && chmod 1777 /cache /work
WORKDIR /src
COPY pyproject.toml ./

# The dependencies have a layer of their own: a change of the code does not install them again.
FROM base AS cpu-packages
RUN uv pip install --system --no-cache --torch-backend cpu -r pyproject.toml --extra lora --extra eval --extra tune

FROM base AS cuda-packages
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN uv pip install --system --no-cache -r pyproject.toml --extra lora --extra eval --extra tune --extra memory

# hadolint ignore=DL3006
FROM ${DEVICE}-packages
WORKDIR /src
COPY README.md LICENSE ./
COPY diffgen diffgen
RUN uv pip install --system --no-cache --no-deps .
USER 1000
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["diffgen"]
CMD ["--help"]
