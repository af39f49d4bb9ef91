# `make demo`, its two variants and `make test` do everything on a fresh clone: environment, then the job.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(INSTALL_OPTIONS)

.PHONY: demo demo-asynchronous demo-all test test-gpu test-workflow test-slurm test-cluster test-browser test-trackers bench docs check lock environment clean

demo: environment
	$(BIN)/snakemake --cores all --config params=workflow/settings/demo.yaml
	@echo "open results/demo/index.html: tables, figures, errors and runs on one page"

# Two phases of stage one and the gradient-distortion figure, on the same data.
demo-asynchronous: environment
	$(BIN)/snakemake --cores all --config params=workflow/settings/demo-asynchronous.yaml
	@echo "table, figures and report: results/demo-asynchronous/asynchronous.md, results/demo-asynchronous/figures"

# Every table and figure of params.yaml, on the same data with one seed.
demo-all: environment
	$(BIN)/snakemake --cores all --config params=workflow/settings/demo-all.yaml
	@echo "tables, figures and report: results/demo-all/table*.md, results/demo-all/figures, results/demo-all/report.html"

test: environment
	$(BIN)/python -m pytest -n 2
	test ! -e /dev/nvidiactl || $(MAKE) test-gpu

# What only a GPU can show; all other tests compute on the CPU, also where there is one.
test-gpu: environment
	LONGTAIL_TEST_GPU=1 $(BIN)/python -m pytest -m gpu

# Snakemake, DVC and torchrun from end to end.
test-workflow: environment
	$(BIN)/python -m pytest -n 2 -m workflow

# A real Slurm of one node with two fake GPUs; where its packages are missing, the tests say which (docs/how-to/cluster.md).
test-slurm: environment
	$(BIN)/python -m pytest -m cluster tests/workflow/test_slurm.py

# Kubernetes by a stand-in for kubectl, DVC remotes in S3 and over SSH by local servers.
test-cluster: environment .venv/.cluster
	$(BIN)/python -m pytest -m "cluster or not cluster" tests/workflow/test_kubernetes.py tests/workflow/test_remotes.py

# The page results/index.html in a headless Chromium; where there is none, the tests say so and are skipped.
test-browser: environment .venv/.browser
	$(BIN)/python -m pytest -m browser tests/publish/test_page_in_browser.py

# Trackers of experiments on local stores, and model cards by a hub's own reader.
test-trackers: environment .venv/.trackers
	$(BIN)/python -m pytest tests/tracking tests/export/test_write.py -k "tracking or hub"

# About 33 minutes on two cores; prints a table and writes benchmarks/latest.json (docs/explanation/performance.md).
bench: environment .venv/.bench
	$(BIN)/python -m benchmarks

# The documentation as a site in site/; a warning is an error. The settings and commands in it are those of the code.
docs: environment .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "the site: site/index.html"

check: environment
	$(BIN)/ruff check . profiles/kubernetes/submit
	$(BIN)/ruff format --check . profiles/kubernetes/submit
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python -m pytest -q tests/workflow/test_lint.py

environment: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'longtail needs Python 3.11 or later; name one with make PYTHON=...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# What only some targets need, e.g. requirements-docs.lock.
.venv/.%: requirements-%.lock $(STAMP)
	$(PIP) --require-hashes --no-deps --requirement $<
	touch $@

# Needs uv; the only step that resolves versions.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--output-file requirements.lock requirements.in
	uv pip compile --quiet --no-deps --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
		--output-file requirements-bench.lock requirements-bench.in
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
		--constraint requirements.lock --output-file requirements-cluster.lock requirements-cluster.in
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
		--constraint requirements.lock --output-file requirements-docs.lock requirements-docs.in
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
		--constraint requirements.lock --output-file requirements-browser.lock requirements-browser.in
	# trackio says that it needs an older pillow, and works with the locked one (make test-trackers)
	sed -n 's/^\(pillow==[^ ;]*\).*/\1/p' requirements.lock > .venv/pillow.txt
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
		--constraint requirements.lock --override .venv/pillow.txt --output-file requirements-trackers.lock requirements-trackers.in

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
