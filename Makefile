# Everything that people and CI do here; the rest is cargo's.

.DEFAULT_GOAL := help
.PHONY: help up build test check fuzz bench bench-long install

# Queries are checked against .sqlx, whether or not DATABASE_URL points to a server for the tests.
export SQLX_OFFLINE ?= true

PROGRAMS := -p ordermill -p ordermill-gateway -p ordermill-bench --bins

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: build ## Run everything on this machine until Ctrl-C; ARGS="--data-dir D --port P"
	@exec target/release/ordermill up $(ARGS)

build: install ## Build the release programs into target/release
	cargo build --release $(PROGRAMS)

# The end-to-end tests start the programs as child processes, so they are built first.
test: install ## Run all tests, from unit to end to end, on a real stack
	cargo build --workspace --bins
	cargo test --workspace --no-fail-fast

check: install ## Formatting, lints, offline queries, schemas, audit: what CI runs before the tests
	cargo fmt --all -- --check
	cargo fmt --manifest-path fuzz/Cargo.toml -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/guarantees
	scripts/sqlx --check
	cargo run --quiet -p ordermill-schemas --bin generate -- --check
	cargo run --quiet -p ordermill-domain --bin diagram -- --check
	@if command -v cargo-deny >/dev/null; then cargo deny check; \
	else echo "cargo-deny is not installed: the audit is skipped"; fi

fuzz: install ## Fuzz what reads bytes from outside, 600 s each; ARGS="--seconds N TARGET..."
	@scripts/fuzz $(ARGS)

bench: build ## Measure every load against pgbench, and what an order costs; ARGS="--only NAME,... --json FILE"
	@exec target/release/ordermill-bench run --svg docs/performance $(ARGS)

bench-long: build ## 300,000 orders of 100,000 users: do speed and memory stay as they are; ARGS="--json FILE"
	@exec target/release/ordermill-bench long --svg docs/performance $(ARGS)

install: ## Install what is missing, by apt-get
	@scripts/install
