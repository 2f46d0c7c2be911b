# The commands of the project. `make lab` to learn, `make test` to check; both set themselves up on the first run.
# Another Python:        make lab PYTHON=python3.12
# Options for Jupyter:   make lab ARGS="--no-browser --port 9000"
# Not the pinned versions of constraints.txt but the newest, in a fresh clone: make lab CONSTRAINTS=

PYTHON ?= python3
PY     := .venv/bin/python
CONSTRAINTS ?= constraints.txt
# For the tests. More than two cores, as each waits a third of its time: for a kernel, a browser, or another of them.
PROCESSES ?= 3
export CONSTRAINTS
# Python keeps what it has compiled, even where it is told not to: PyTorch is imported in 2 s then, else in 8 s.
unexport PYTHONDONTWRITEBYTECODE
# JupyterLab refuses to run as root unless it is told that this is meant.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help lab test export outputs bugs data live fuzz docs book bench records clean lab-env dev-env fuzz-env
help:
	@echo "make lab       read and run the chapters in JupyterLab"
	@echo "make test      run every check (CHAPTER=02: those of one chapter)"
	@echo "make export    write exp/ from nbs/"
	@echo "make docs      build the site into docs/_build/html"
	@echo "make book      print the site to one PDF, with Chromium (two minutes)"
	@echo "make outputs   run the notebooks, store their outputs, show what changed"
	@echo "make bugs      plant bugs in the chapters, store which check catches each"
	@echo "make data      check the data files against their checksums"
	@echo "make records   make the long runs of records/ that are missing (all anew: four hours)"
	@echo "make live      train with PyTorch what the page Train it here is compared with"
	@echo "make fuzz      feed the file reader with damaged files for a minute"
	@echo "make bench     time our loops beside the tools one would otherwise pick (15 minutes; QUICK=1: a smoke test)"
	@echo "make clean     remove what the other commands made, .venv included"

lab: lab-env
	@$(PY) -m jupyterlab $(AS_ROOT) nbs --LabApp.default_url=/lab/tree/01_data.ipynb $(ARGS)

test: dev-env
	@$(PY) -m ruff check
	@$(PY) -m pytest -n $(PROCESSES) --maxschedchunk 1 $(CHAPTER:%=--chapter %) $(ARGS)

export: lab-env
	@$(PY) -m tools.export

outputs: dev-env
	@$(PY) -m tools.outputs $(CHAPTER) $(ARGS)

bugs: dev-env
	@$(PY) -m tools.bugs $(CHAPTER) $(ARGS)

fuzz: fuzz-env
	@$(PY) -m tests.fuzz.fuzz_read_idx tests/fuzz/corpus -max_total_time=60 -runs=200000 -max_len=512 -print_final_stats=1 $(ARGS)

docs: dev-env
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "The site: docs/_build/html/index.html"

book: docs
	@$(PY) docs/book.py
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html  # the home page links to it now

data: lab-env
	@$(PY) -m tools.data

records: dev-env
	@$(PY) -m tools.records $(ARGS)

live: lab-env
	@$(PY) -m docs.live.runs

bench: dev-env
	@$(PY) -m bench.driver $(if $(QUICK),--quick) $(ARGS)

lab-env dev-env fuzz-env:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer, or name yours: make lab PYTHON=..."; exit 1; }
	@$(PYTHON) tools/environment.py $(subst -env,,$@)

clean:
	rm -rf .venv bench/.venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis docs/_build docs/chapters docs/loops docs/reference .proofs exp/_modidx.py nbs/_quarto.yml nbs/nbdev.yml
	find . -name __pycache__ -prune -exec rm -rf {} +
