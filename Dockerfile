# syntax=docker/dockerfile:1
# Image for NVIDIA GPUs; docs/cloud.md says how to build and run it. CUDA comes with jax's wheels, ffmpeg with PyAV's: of
# the host only the driver and the NVIDIA Container Toolkit are needed.

FROM python:3.12-slim-bookworm AS package

# Libraries that the wheels of OpenCV and MediaPipe expect from the system.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgles2 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# The requirements change less often than the package: a layer of their own.
COPY docker/requirements.txt /tmp/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement /tmp/requirements.txt

COPY pyproject.toml README.md LICENSE /src/
COPY mimicmotion_jax /src/mimicmotion_jax
RUN pip install --no-cache-dir --no-deps --no-build-isolation /src

# Models from the hub, compiled programs and the certificate of content credentials; any user may write there.
ENV HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache \
    MIMICMOTION_CONFIG=/cache/config \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN mkdir --mode=1777 /cache /work
VOLUME /cache


# Worker of Apache Beam on Dataflow or Flink (docker build --target beam): started by Beam's own program, as root.
FROM apache/beam_python3.12_sdk:2.72.0 AS beam_sdk

FROM package AS beam
COPY --from=beam_sdk /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]


FROM package AS mimicmotion
COPY configs /work/configs
RUN useradd --create-home --uid 1000 mimicmotion
USER 1000
WORKDIR /work
ENTRYPOINT ["mimicmotion"]
CMD ["--help"]
