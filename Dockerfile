# Images of both programs, for a registry:
#   docker build --target apiserver  -t REGISTRY/steward-apiserver:0.1.0 .
#   docker build --target controller -t REGISTRY/steward-controller:0.1.0 .
# (`make images` builds archives of the same content without Docker.)
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package apiserver --package controller \
    && mkdir /out \
    && install target/release/steward-apiserver /out/ \
    && install target/release/steward-controller /out/

# libc, libgcc and time zones; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot AS base
USER 65532:65532

FROM base AS apiserver
COPY --from=build /out/steward-apiserver /steward-apiserver
EXPOSE 6443
ENTRYPOINT ["/steward-apiserver"]

FROM base AS controller
COPY --from=build /out/steward-controller /steward-controller
EXPOSE 8080
ENTRYPOINT ["/steward-controller"]
