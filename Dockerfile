# One small image with all five programs. The command selects the program: docker run IMAGE ingestor

FROM rust:1.95-slim-bookworm AS build
# librdkafka is built from its sources, against the system's OpenSSL
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The builder keeps the registry and the target folder, so a change of our code does not compile the dependencies again.
# `touch` is needed because cargo compares the times of files. Without it, cargo would not compile a changed file of another
# checkout that is older than the last build.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    find . -path ./target -prune -o -type f -exec touch {} + \
 && cargo build --release --locked -p netagg --bins \
 && cd target/release && install -D -t /programs ingestor aggregator api generator netagg

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home netagg
COPY --from=build /programs/ /usr/local/bin/
COPY deploy/docker/ready /usr/local/bin/
USER netagg
# A heap of glibc for each thread would cost more memory than it saves time.
ENV MALLOC_ARENA_MAX=2
CMD ["netagg", "--help"]
