# make install   set up what 'dinolizer' needs, and no more
# make demo      localize a photograph (PHOTO=path) and write its report
# make lab       set up everything, and open JupyterLab on the notebooks
# make results   regenerate the pocket study into results/pocket (PROFILE=paper: another)
# make test      run every check and test, and two notebooks as a reader would
# make browser   open the pages and the quickstart in Chromium; screenshots in data/screenshots
# make verify    make the study again beside the committed one, and compare them
# make notebooks execute the notebooks in place, so that they carry their outputs
# make site      the notebooks, the summary and the API as pages, in data/site/index.html
# make bench     measure speed in one run into results/bench/<machine and versions>.csv
# make fuzz      damaged files for every reader (SECONDS=60), counted in FUZZED=data/cache/fuzz.csv
# make trust     measure what keeps results safe, into results/bench; before it
#                make fuzz SECONDS=1800 FUZZED=results/bench/fuzz.csv
# make lock      pin the dependencies of pyproject.toml anew
# make clean     remove what the others made, results/ apart
#
# Each sets up .venv by itself and does again only what has changed.

PYTHON ?= python3
CORES ?= 2
PROFILE ?= pocket
SECONDS ?= 60
FUZZED ?= data/cache/fuzz.csv

BIN := $(CURDIR)/.venv/bin
CACHE := $(CURDIR)/data/cache
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# Those that nbval executes once more, as a reader does; the workflow executes them all.
QUICK := $(foreach name,00 10,$(wildcard notebooks/$(name)-*.ipynb))
# A line for each step; what else Snakemake would say is in its log, below .snakemake.
SNAKEMAKE := PYTHONPATH=profiles snakemake --cores $(CORES) --logger lines
# Everything in the checkout that a test could depend on; wildcard drops what git knows but is gone.
SOURCES := $(wildcard $(shell git ls-files --cached --others --exclude-standard -- . ':!results'))

export PATH := $(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
# What the caller has set for another environment must not leak into this one.
unexport PYTHONPATH PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

.PHONY: help install demo lab results test browser verify notebooks site bench fuzz trust lock clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/make/p' Makefile

install: .venv/core
	@echo "dinolizer is in $(BIN); to have it by name: source .venv/bin/activate"

ifeq ($(MAKECMDGOALS)$(PHOTO),demo)
$(error Which photograph? make demo PHOTO=path/to/photo.jpg)
endif
demo: .venv/core
	@env -u OMP_NUM_THREADS dinolizer report "$$PHOTO" --out data/demo --overwrite

lab: .venv/installed
	@# The notebooks ask for the kernel python3, as every Jupyter has it; here it gets a name of its own.
	@python -m ipykernel install --sys-prefix --name python3 --display-name DinoLizer > /dev/null
	env -u OMP_NUM_THREADS jupyter lab --notebook-dir=notebooks

results: MADE = $${DINOLIZER_RESULTS:-results}/$(basename $(notdir $(PROFILE)))
results: .venv/installed
	@$(SNAKEMAKE) --config profile=$(PROFILE)
	@dinolizer verify --quick "$(MADE)"
	@echo "Look at $(MADE): tables, figures and, where claims are tested, SUMMARY.md."

test: .venv/tested
	@echo "Every test passes on the present sources; nothing more to run."

browser: .venv/installed site
	DINOLIZER_CACHE=$(CACHE) pytest tests/browser.py

verify: .venv/verified
	@echo "The present sources make the committed tables and outputs."

notebooks: .venv/installed
	DINOLIZER_RESULTS=$(CACHE)/scratch jupyter nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False --log-level=WARN $(NOTEBOOKS)

site: .venv/installed
	sphinx-build --quiet --fail-on-warning --keep-going -c docs/site . data/site
	@echo "Open data/site/index.html in a browser."

bench: .venv/installed
	env -u OMP_NUM_THREADS python benchmarks/speed.py

fuzz: .venv/installed
	python benchmarks/fuzz.py --seconds $(SECONDS) --out $(FUZZED)

trust: .venv/installed
	PYTHONPATH=tests python benchmarks/trust.py

lock: .venv/bin/uv
	uv pip compile --no-config --quiet --upgrade --universal --fork-strategy fewest \
	    --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .snakemake data/cache *.egg-info .*_cache

.venv/bin/uv:
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	    f'$(PYTHON) is Python {v.major}.{v.minor}; 3.11 or newer is needed: make PYTHON=...')"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv

# The versions of the lock, but not its hashes: those of torch's wheels for the CPU are others.
.venv/core: .venv/bin/uv requirements.lock pyproject.toml
	@echo "Installing what localizing needs into .venv, once: some minutes."
	@uv pip install --no-config --quiet --python .venv --no-verify-hashes -c requirements.lock -e .
	@touch $@

.venv/installed: .venv/bin/uv requirements.lock pyproject.toml
	@echo "Installing everything into .venv, once: some minutes and gigabytes."
	@uv pip install --no-config --quiet --python .venv --require-hashes -r requirements.lock
	@uv pip install --no-config --quiet --python .venv --no-deps --no-build-isolation -e .
	@touch $@

.venv/tested .venv/verified: export DINOLIZER_CACHE := $(CACHE)
.venv/tested .venv/verified: export DINOLIZER_RESULTS := $(CACHE)/scratch
.venv/tested: .venv/installed $(SOURCES)
	@echo "[1/5] style"
	@ruff check --quiet
	@ruff format --check --quiet
	@echo "[2/5] types of the package"
	@MYPYPATH=pretraining mypy --no-error-summary dinolizer pretraining
	@echo "[3/5] types of the notebooks"
	@# Parameters are plain literals.
	@nbqa mypy notebooks --no-error-summary --disable-error-code=var-annotated
	@echo "[4/5] tests: some minutes"
	@pytest --quiet --numprocesses $(CORES) --dist loadfile --durations=10 --durations-min=5
	@echo "[5/5] two notebooks as a reader runs them"
	@pytest --quiet --numprocesses $(CORES) --dist loadscope --nbval-lax --nbval-current-env $(QUICK)
	@touch $@

.venv/verified: .venv/installed $(SOURCES)
	@rm -rf $(CACHE)/scratch
	@$(SNAKEMAKE)
	@pytest --quiet tests/reproduction.py
	@touch $@
