# skinlesion in a container: `docker build -t skinlesion .`, then
#
#   docker run --rm --network none -v "$PWD/images:/images:ro" -v "$PWD/results:/results" skinlesion predict /images
#
# Add `--user "$(id -u):$(id -g)"` and the results belong to you; without it they belong to the user 10001.
#
# For CPUs. With `--build-arg TORCH_INDEX=https://pypi.org/simple` the same file makes the variant for NVIDIA GPUs
# (several gigabytes larger; run it with `--gpus all`).
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN python -m venv /opt/skinlesion
ENV PATH=/opt/skinlesion/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
# torch before the sources: this layer, by far the largest, is built again only when its versions change. Alone: its
# index has few versions of what torch needs in turn, which comes from PyPI with everything else.
COPY constraints.txt ./
RUN pip install -c constraints.txt --no-deps --index-url "${TORCH_INDEX}" torch torchvision
COPY pyproject.toml README.md LICENSE LICENSE-weights ./
COPY configs configs
COPY skinlesion_cli skinlesion_cli
# Tests and headers of the libraries are a tenth of what they take.
RUN pip install -c constraints.txt '.[dicom]' \
    && find /opt/skinlesion -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} + \
    && rm -rf /opt/skinlesion/lib/python*/site-packages/torch/include

FROM python:${PYTHON_VERSION}-slim
RUN useradd --create-home --uid 10001 skinlesion && mkdir /results && chown skinlesion /results
COPY --from=build /opt/skinlesion /opt/skinlesion
ENV PATH=/opt/skinlesion/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SKINLESION_CACHE=/home/skinlesion/.cache/skinlesion
USER 10001
WORKDIR /results
# Predicts an image whose result is known; exit code 1 if anything is broken.
HEALTHCHECK --interval=1h --timeout=2m --start-period=1m CMD ["skinlesion", "doctor", "--quiet"]
ENTRYPOINT ["skinlesion"]
CMD ["--help"]
