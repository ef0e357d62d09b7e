# Both programs, `ordermill` and `ordermill-gateway`, in one small image that runs as nobody in particular.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# The image's toolchain is the one that rust-toolchain.toml names; that file's components are not needed here.
ENV RUSTUP_TOOLCHAIN=1.95.0 SQLX_OFFLINE=true CARGO_PROFILE_RELEASE_DEBUG=none
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p ordermill -p ordermill-gateway --bins \
    && install -D -t /programs target/release/ordermill target/release/ordermill-gateway

FROM debian:bookworm-slim
# Kafka's client makes TLS of libssl; whoever is certified by a public CA is believed by ca-certificates.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ordermill \
    && install -d -o ordermill -g ordermill /data
# For health checks: whether GET PATH on this container's PORT answers 200.
COPY --chmod=755 <<'EOF' /usr/local/bin/answers
#!/bin/bash
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
read -r status <&3 && [[ $status == 'HTTP/1.1 200 '* ]]
EOF
COPY --from=build /programs/ /usr/local/bin/
USER ordermill
WORKDIR /data
VOLUME /data
EXPOSE 8080 8090 9100
ENTRYPOINT ["ordermill"]
CMD ["--help"]
