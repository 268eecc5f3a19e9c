# A container for any recipe. The base is plain Python: torch's wheels bring CUDA's libraries, so a base image with CUDA would hold
# them twice; of the host only the driver and the NVIDIA Container Toolkit are used. DeepSpeed wants nvcc for kernels that no recipe uses.
#   docker build -t whisper-tutorial .
#   docker run --rm --gpus all --shm-size 8g -e HF_TOKEN -e MDC_API_KEY -e ZENODO_TOKEN \
#     -v runs:/home/user/whisper-tutorial/_runs -v downloads:/home/user/.cache whisper-tutorial RECIPE=common-voice-event NAME=mine
# Without a GPU: --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu is smaller. To see the runs in a folder of yours, which
# user 1000 of the container must be able to write: --build-arg UID=$(id -u) and -v "$PWD/_runs:/home/user/whisper-tutorial/_runs".
# Tokens are given when it runs, never when it is built: whoever has an image can read what it was built with.
FROM python:3.12-slim-bookworm

# a compiler, because torch.compile writes kernels; git, because a run notes its commit
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ git make && rm -rf /var/lib/apt/lists/*

ARG UID=1000
# WORKDIR and VOLUME would make these for root
RUN useradd --create-home --uid $UID user && su user -c "mkdir -p /home/user/whisper-tutorial/_runs /home/user/.cache"
USER user
WORKDIR /home/user/whisper-tutorial

# what `make install` reads comes first: a changed recipe or chapter's text installs nothing again
COPY --chown=user Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=user data data
COPY --chown=user whisper_tutorial whisper_tutorial
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1
RUN make install
COPY --chown=user . .

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility PYTHONUNBUFFERED=1
VOLUME ["/home/user/whisper-tutorial/_runs", "/home/user/.cache"]
ENTRYPOINT ["make", "--no-print-directory", "run"]
CMD ["RECIPE=quickstart"]
