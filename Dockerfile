# edgeprune on a plain Debian: docker build -t edgeprune . && docker run --rm -v "$PWD:/work" edgeprune build --target rpi4
FROM python:3.11-slim-bookworm

COPY . /opt/edgeprune
RUN python -m pip install --no-cache-dir --constraint /opt/edgeprune/constraints.txt '/opt/edgeprune[build]' \
    && rm -r /opt/edgeprune \
    && useradd --create-home --uid 1000 edgeprune \
    && install --directory --owner=edgeprune /work

USER 1000
WORKDIR /work
ENTRYPOINT ["edgeprune"]
CMD ["--help"]
