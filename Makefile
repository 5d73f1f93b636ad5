# The two commands of the README are `make demo` and `make test`; everything here sets itself up first.
SHELL := /bin/bash
PACKAGES := kvnet backends datapath controller worker lab cli
BIN := .venv/bin
ready := .venv/.ready
STORE_JOBS := 4
SITE_JOBS := 3
SIDE_BY_SIDE := tests/unit tests/api tests/cli tests/faults tests/security tests/upgrade
BESIDE_SERVERS := tests/store tests/lab/stores tests/soak tests/docs
STORES := etcd3.4-1,etcd3.5-3,consul-1,consul-3,zookeeper-1,zookeeper-3
ON_ANY_STORE := tests/api tests/cli tests/unit/controller/test_races.py tests/upgrade/test_images.py

.DEFAULT_GOAL := help
.PHONY: help setup servers demo test test-all compose-test simulate torture fuzz soak check format bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(ready) ## make .venv and fetch what the machine lacks (no root needed)

$(ready): pyproject.toml uv.lock scripts/setup scripts/fetch-nft
	@scripts/setup
	@touch $@

demo: $(ready) ## three hosts, one overlay network, pings across (ONCE=1 exits after the report)
	@$(BIN)/kvnet demo $(if $(ONCE),--once) $(if $(HOSTS),--hosts $(HOSTS)) $(if $(STORE),--store $(STORE)) $(if $(JSON),--json)

servers: ## unpack what tests run (etcd, Consul, ZooKeeper; Docker, compose, podman, iptables, firewalld; Chromium; zsh, fish) into .tools (no root needed)
	@tests/servers/install
	@tests/docker/install
	@tests/cni/install
	@[ "$$(id -u)" != 0 ] || tests/compose/install
	@tests/observability/install
	@tests/browser/install
	@tests/cli/install

# What needs a processor runs in two processes (SIDE_BY_SIDE); what programs kernels or looks at the clock runs alone. The
# tests of the stores mostly wait for servers, so several processes wait at once (STORE_JOBS), and so do those of whole
# sites on stores (SITE_JOBS). Then the product's own tests once more, on real servers.
# What fails is run once more, alone, and told as UNSTEADY if it passes then (tests/again.py).
# A process of several cannot make itself a user namespace (it has threads by then), so an ordinary user gets one before.
as_root := $(if $(filter 0,$(shell id -u)),,unshare -Urm --)
test: $(ready) servers ## every test, the real-kernel ones in namespaces of their own (ARGS="..." runs only pytest ARGS)
ifdef ARGS
	@$(BIN)/pytest $(ARGS)
else
	@failed=0; \
	$(as_root) $(BIN)/python -m tests.again -n 2 $(SIDE_BY_SIDE) || failed=$$?; \
	$(BIN)/python -m tests.again $(foreach one,$(SIDE_BY_SIDE) $(BESIDE_SERVERS),--ignore=$(one)) || failed=$$?; \
	$(as_root) $(BIN)/python -m tests.again -n $(SITE_JOBS) tests/docs || failed=$$?; \
	$(as_root) $(BIN)/python -m tests.again -n $(SITE_JOBS) --dist loadgroup tests/lab/stores tests/soak || failed=$$?; \
	$(BIN)/python -m tests.again -n $(STORE_JOBS) --dist loadgroup tests/store || failed=$$?; \
	$(BIN)/python -m tests.again -n $(STORE_JOBS) --dist loadgroup -m xdist_group --stores $(STORES) $(ON_ANY_STORE) || failed=$$?; \
	exit $$failed
endif

compose-test: $(ready) ## the cluster of docker-compose.yml, for real: build, up, walk, down (STORE=etcd,consul,zookeeper; root or DOCKER_HOST)
	@$(BIN)/python -m tests.compose $(if $(STORE),--store $(STORE))

simulate: $(ready) ## whole clusters in virtual time, each from one seed, under faults (SEEDS=1000 FROM= STEPS=1000 JOBS=2; one: SEED=)
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) \
	  $(if $(FROM),--from $(FROM)) $(if $(STEPS),--steps $(STEPS)) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

torture: $(ready) servers ## race for addresses under faults, check the history (STORE= MEMBERS= SECONDS= SEED= CLIENTS=)
	@$(BIN)/python -m tests.torture $(if $(STORE),--store $(STORE)) $(if $(MEMBERS),--members $(MEMBERS)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(CLIENTS),--clients $(CLIENTS)) $(ARGS)

fuzz: $(ready) ## throw a fuzzer's input at one reader of strangers' bytes (TARGET=dns, resolver, gateway, codec, http; SECONDS=)
	@$(BIN)/python -m tests.input.fuzz $(or $(TARGET),dns) --seconds $(or $(SECONDS),60)

soak: $(ready) servers ## a whole site under faults for long, judged at the end (STORE=etcd|consul|zookeeper|sqlite MINUTES= SEED= HOSTS= CONTROLLERS=)
	@$(BIN)/python -m tests.soak $(if $(STORE),--store $(STORE)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(HOSTS),--hosts $(HOSTS)) $(if $(CONTROLLERS),--controllers $(CONTROLLERS)) $(ARGS)

check: $(ready) ## format, lint, layers, types, known weaknesses of what is locked
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --config .importlinter >/dev/null || $(BIN)/lint-imports --config .importlinter
	@$(BIN)/mypy
	@$(BIN)/python scripts/audit
	@echo "check: clean"

format: $(ready) ## let ruff rewrite what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(ready) servers ## measure, write docs/performance.{json,md} and plots (ONLY="scale curves", QUICK=1: small, nothing written)
	@$(BIN)/python -m bench $(ONLY) $(if $(QUICK),--quick) $(ARGS)

lock: ## renew uv.lock and constraints.txt from pyproject.toml (needs uv)
	uv lock
	uv export -q --all-extras --no-hashes --no-emit-project --format requirements.txt -o constraints.txt

clean: ## remove everything that setup made
	rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
