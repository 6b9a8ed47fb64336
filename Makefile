# The tasks of this project. `make help` lists them.
# Like the programs, the tasks read settings from the environment or from .env. .env.example has all settings.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help init up down logs native-up native-down native-status kafka-create-topic kafka-topics \
	kafka-describe-topic migrate-up migrate-down migrate-status db-shell redis-cli build-all build-ingestor \
	build-aggregator build-api run-generator test test-coverage soak fuzz fuzz-check bench fmt lint helm-check \
	workflows-check proto-gen publish docs deb install-tools clean

PROGRAM = cargo run --quiet --release --locked -p netagg --bin
NETAGG = $(PROGRAM) netagg --
DOCKER_ANSWERS = docker info >/dev/null 2>&1
COMPOSE = docker compose
# The value of a setting as the programs read it: from the environment, else from .env, else the default.
SETTING = . deploy/native/common.sh; setting

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##### Start and stop

init: .env ## Create .env, start the broker, the database and the cache, and create topics and tables
	@if $(DOCKER_ANSWERS); then \
		$(COMPOSE) up --detach --wait redpanda postgres redis && $(COMPOSE) run --rm --build setup && \
		echo "Ready. Next: make up"; \
	else \
		$(MAKE) --no-print-directory native-up migrate-up kafka-create-topic && \
		echo "Ready, without Docker. Next, run each command in its own terminal:" && \
		for program in ingestor aggregator api; do echo "  cargo run --release -p netagg --bin $$program"; done && \
		echo "  make run-generator"; \
	fi

.env:
	cp .env.example .env

up: .env ## Start the whole system in containers (docker compose)
	@$(DOCKER_ANSWERS) || { echo "No Docker engine answers. Without Docker: make init" >&2; exit 1; }
	$(COMPOSE) up --detach --build --wait ingestor aggregator api console
	@$(COMPOSE) ps
	@echo "Load: $(COMPOSE) run --rm generator. API: http://localhost:$$($(SETTING) API_HTTP_PORT 8000)/api/v1/..."

down: ## Stop the containers; their data stays (docker compose down --volumes removes it)
	$(COMPOSE) --profile load --profile observability down

logs: ## Follow the containers' logs
	$(COMPOSE) logs --follow --tail 100

native-up: ## Start PostgreSQL, Redis and Kafka without Docker, on the default ports
	@deploy/native/install
	@deploy/native/up

native-down: ## Stop the servers that native-up started; their data stays (deploy/native/down --purge removes it)
	@deploy/native/down

native-status: ## Show which servers respond, and which of them native-up started
	@deploy/native/status

##### Kafka, PostgreSQL, Redis

kafka-create-topic: ## Create the topics of events and of dead letters
	$(NETAGG) topic create

kafka-topics: ## List the topics
	$(NETAGG) topic list

kafka-describe-topic: ## Show the partitions and settings of our topics
	$(NETAGG) topic describe

migrate-up: ## Bring the database's schema up to date
	$(NETAGG) migrate up

migrate-down: ## Undo the last migration
	$(NETAGG) migrate down

migrate-status: ## Show which migrations are applied
	$(NETAGG) migrate status

db-shell: ## Open psql on the database
	@if command -v psql >/dev/null; then \
		export PGPASSWORD=$$($(SETTING) POSTGRES_PASSWORD app_password); \
		psql -h "$$($(SETTING) POSTGRES_HOST localhost)" -p "$$($(SETTING) POSTGRES_PORT 5432)" \
			-U "$$($(SETTING) POSTGRES_USER app_user)" "$$($(SETTING) POSTGRES_DB network_events)"; \
	else \
		$(COMPOSE) exec postgres psql -U "$$($(SETTING) POSTGRES_USER app_user)" \
			"$$($(SETTING) POSTGRES_DB network_events)"; \
	fi

redis-cli: ## Open redis-cli on the cache
	@if command -v redis-cli >/dev/null; then \
		redis-cli -h "$$($(SETTING) REDIS_HOST localhost)" -p "$$($(SETTING) REDIS_PORT 6379)"; \
	else \
		$(COMPOSE) exec redis redis-cli; \
	fi

##### Build and run

build-all: ## Build all five programs (release) into target/release
	cargo build --release --locked -p netagg --bins

build-ingestor: ## Build the ingestor (release)
	cargo build --release --locked -p netagg --bin ingestor

build-aggregator: ## Build the aggregator (release)
	cargo build --release --locked -p netagg --bin aggregator

build-api: ## Build the API (release)
	cargo build --release --locked -p netagg --bin api

run-generator: ## Send events and verify them in the database (GENERATOR_* sets their number and kind)
	$(PROGRAM) generator

##### Develop

# The tests start programs and examples, so one build makes programs, examples and tests. Tests wait most of the time, so two
# tests share a processor. The services are installed only if neither addresses in the environment nor Docker provide them.
# tests/README.md explains how tests find their services.
test: ## Run every test; on Debian as root, install the missing services and tools first
	@if [ -n "$${NETAGG_TEST_POSTGRES_URL-}" ] && [ -n "$${NETAGG_TEST_REDIS_URL-}" ] && \
		[ -n "$${NETAGG_TEST_KAFKA_BROKERS-}" ]; then echo "services: from the environment"; \
	elif $(DOCKER_ANSWERS); then echo "services: Docker"; \
	else deploy/native/install; fi
	deploy/native/install python chromium pages
	cargo build --locked --workspace --all-features --bins --tests --examples
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(getconf _NPROCESSORS_ONLN)))} \
		cargo test --locked --workspace --all-features

test-coverage: ## Run every test and report line coverage (needs install-tools)
	source <(cargo llvm-cov show-env --sh); \
	cargo llvm-cov clean --workspace; \
	cargo build --locked --workspace --all-features --bins --tests --examples; \
	cargo test --locked --workspace --all-features --lib --bins --tests; \
	cargo llvm-cov report

# One test for each mode: two ingestors and two aggregators, or two combined ingestors. The test kills and stops them at random.
soak: ## Kill services at random, 1,000 times in each mode, and check that no event is lost or doubled (KILLS, SEED)
	cargo build --locked --workspace --all-features --bins --tests
	NETAGG_KILLS=$${KILLS:-1000} NETAGG_KILLS_SEED=$${SEED:-$$(date +%s)} \
		cargo test --locked --workspace --all-features -p netagg-testkit --test main -- --nocapture random_kills

# The fuzz targets use the same versions of dependencies as the workspace.
fuzz: ## Fuzz the event decoder and the cursor, FUZZ_SECONDS (600) each (needs nightly Rust and cargo-fuzz)
	cp Cargo.lock fuzz/Cargo.lock
	for target in event_decode cursor; do \
		mkdir -p fuzz/corpus/$$target; \
		cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -dict=fuzz/event.dict \
			-use_value_profile=1 -max_total_time=$${FUZZ_SECONDS:-600} -print_final_stats=1; \
	done

fuzz-check: ## Check that the fuzz targets compile, without running them (needs a C++ compiler)
	cp Cargo.lock fuzz/Cargo.lock
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings

bench: ## Run the benchmarks
	cargo bench --locked --workspace

fmt: ## Format the code
	cargo fmt --all

lint: ## Check format, clippy, docs, import cycles, words, alerts, workflows and, if cargo-deny is installed, dependencies
	cargo fmt --all --check
	deploy/checks/test-import-cycles --quiet
	deploy/checks/import-cycles
	deploy/checks/plain-words
	deploy/checks/observability
	deploy/checks/workflows
	deploy/checks/systemd
	deploy/docs/build
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo clippy --locked --package netagg --no-default-features --bin netagg -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --workspace --all-features
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --all-features check --hide-inclusion-graph; \
	else echo "cargo-deny is not installed (make install-tools): dependencies not checked"; fi

helm-check: ## Check the Helm chart without a cluster (builds helm at the first run, if it is missing)
	deploy/checks/helm

workflows-check: ## Check the workflows of CI and releases without a forge (builds actionlint at the first run)
	deploy/checks/workflows
	deploy/checks/systemd
	deploy/docs/build

proto-gen: ## Build netagg-api, which generates the gRPC code
	@echo "The build generates the code from netagg-api/proto. The code is not checked in, and protoc is not needed."
	cargo build --locked -p netagg-api

publish: ## Publish every crate to REGISTRY of your cargo configuration; a dry run without DRY_RUN=no (docs/publishing.md)
	@deploy/publish $(if $(filter no,$(DRY_RUN)),--upload) "$(REGISTRY)" $(PUBLISH_OPTIONS)

docs: ## Build the documentation site in target/book, and check every link
	@deploy/docs/build

deb: ## Build the Debian package in target/debian (release; takes some minutes)
	@deploy/deb

install-tools: ## Install cargo-deny and cargo-llvm-cov
	cargo install --locked cargo-deny cargo-llvm-cov
	@if command -v rustup >/dev/null; then rustup component add clippy llvm-tools rustfmt; fi

clean: ## Remove all build output; data stays
	cargo clean
