# make lab   opens JupyterLab on the tour          make bench      speed against peers, as ratios
# make test  lints, types and runs every test      make reproduce  rebuilds the shipped checkpoints and studies
# make fuzz  damages thousands of files            make docs       the site, docs/_build/html
# make clicks  ten minutes of random clicks        make pictures   screenshots of the browser tests, into docs

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# what is imported is compiled then; all of it takes longer than to unpack it
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile
TORCH := $(shell grep '^torch==' constraints.txt)
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
WORKERS ?= 2
# else every interpreter that a test starts compiles the workbench
export PYTHONDONTWRITEBYTECODE =
# several torch processes on few cores wait for each other's threads far longer than they compute
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: lab test lint types unit notebooks browser clicks pictures docs fuzz bench reproduce clean

lab: $(VENV)/.lab
	$(BIN)/jupyter lab $(AS_ROOT) $(LAB_FLAGS) notebooks/start.ipynb

test: lint types unit notebooks browser

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

unit: $(VENV)/.test
	$(ONE_THREAD) $(BIN)/python -m pytest tests workbench widgets -m "not browser" --doctest-modules -q -p no:nbval -n $(WORKERS) --dist loadfile

notebooks: $(VENV)/.test
	$(ONE_THREAD) $(BIN)/python -m pytest notebooks -q --nbval-lax --nbval-current-env \
	  --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 120 -n $(WORKERS) --dist loadfile

# two pages, as each waits half of its time
browser: $(VENV)/.test
	$(BIN)/python -m pytest tests/browser -m browser -q -rs -p no:nbval -n $(WORKERS) --dist worksteal

# ten minutes of random clicks in the workbench instead of one
clicks: $(VENV)/.test
	WORKBENCH_CLICKS=600 $(BIN)/python -m pytest tests/browser -m browser -q -k random_clicks

# what docs/pictures.md shows, as the browser tests see it
pictures: export WORKBENCH_REQUIRE_BROWSER = 1
pictures: export WORKBENCH_SCREENSHOTS =
pictures: browser
	$(BIN)/python docs/take_pictures.py

# thousands of damaged files instead of hundreds, drawn anew every time
fuzz: $(VENV)/.test
	$(ONE_THREAD) $(BIN)/python -m pytest tests/test_weights.py tests/test_results.py -q -k "damaged or loses_no_bit" --hypothesis-profile=explore

# any warning fails it; nothing is asked of the network
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

reproduce: $(VENV)/.test
	$(BIN)/python data/build.py
	$(ONE_THREAD) $(BIN)/python data/studies.py
	$(ONE_THREAD) $(BIN)/python data/connectivity_study.py
	$(ONE_THREAD) $(BIN)/python data/degeneracy_study.py
	$(ONE_THREAD) $(BIN)/python data/signatures_study.py

$(VENV)/.lab $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or newer is needed: make PYTHON=python3.11" && exit 1)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || (echo "on Debian: apt-get install python3-venv" && exit 1)
	$(PIP) -U pip
	$(PIP) $(TORCH)
	$(PIP) -c constraints.txt -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-peers docs/_build docs/reference docs/notebooks
