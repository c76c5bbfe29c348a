# Training, testing and export on NVIDIA GPUs: docs/containers.md says how it is used.
#
#   docker build -t internvit-seg .
#   docker run --rm --gpus all internvit-seg tools/train.py --help
#
# PyTorch's packages bring CUDA, the host brings the driver. What is installed has the hashes of
# requirements/*.lock. The base has a tag, which is updated in place; whoever needs the same bytes
# again writes its digest here: docker buildx imagetools inspect python:3.12-slim-trixie

FROM python:3.12-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PATH=/opt/venv/bin:$PATH
WORKDIR /opt/internvit-seg
RUN python -m venv /opt/venv
COPY requirements/runtime.lock requirements/openmmlab.lock requirements/
COPY scripts/mmcv_build scripts/mmcv_build
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes -r requirements/runtime.lock \
    && PYTHONPATH=$PWD/scripts/mmcv_build pip install --no-deps --no-build-isolation --use-pep517 \
    --require-hashes -r requirements/openmmlab.lock
COPY . .
# Editable: the tools run from this folder, and mmseg's own tools find the package there, too.
RUN pip install --no-deps --no-build-isolation --no-cache-dir --editable . \
    && python -m compileall -q mmseg_custom

FROM python:3.12-slim-trixie
# A C++ compiler is for engine.compile=True, the step of LowMemoryAdamW, and AOTInductor; NCCL looks for
# the libraries of InfiniBand. Debian keeps one version of each at a time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libibverbs1 ibverbs-providers \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 seg
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/internvit-seg /opt/internvit-seg
# A user whom only the host knows (docker run --user) has no name and no home: caches go to /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    USER=seg \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    TRITON_CACHE_DIR=/tmp/cache/triton
WORKDIR /opt/internvit-seg
USER 1000
ENTRYPOINT ["python"]
CMD ["tools/train.py", "--help"]
