# Everything a user types. Needs Python >= 3.10, make and git; the rest is installed into .venv.
PYTHON ?= python3
PARAMS ?= params/grids/quick.yaml
DATA ?=
WEIGHTS ?=
JOBS ?= 2
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install study sample report test faults bench lab check clean

help:  ## list these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## make .venv and install everything into it

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python >= 3.10 is needed; give one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,onnx,cluster]"
	@touch $@

study: install  ## run the study and render reports/index.html [DATA=path WEIGHTS=path PARAMS=params/grids/reference.yaml JOBS=2]
	$(BIN)/adlib run $(PARAMS) $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") --jobs $(JOBS) --report

sample: install  ## make docs/sample, the report of a small study of drawn parts, in minutes [WEIGHTS=path]
	$(BIN)/adlib data synthesize --root data/sample --train 60 --good 10 --anomalous 11 --pixels 128
	$(BIN)/adlib run params/grids/sample.yaml --data data/sample --reports reports/sample $(if $(WEIGHTS),--weights "$(WEIGHTS)") --jobs $(JOBS) --report
	$(BIN)/adlib report --reports reports/sample --pages docs/sample

report: install  ## render the report again from the runs that are there
	$(BIN)/adlib report

test: install  ## lint, check the packages, then the whole test suite
	$(BIN)/ruff check adlib tests benchmarks
	$(BIN)/python -m pip check
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal

faults: install  ## kill a study fifty times, fill its disk, and more: the fault tests at full length
	KILLS=50 $(BIN)/python -m pytest -s tests/test_faults.py

bench: install  ## the reference's way and ours side by side, in 20 minutes [DATA=path WEIGHTS=path FULL=1, hours]
	$(BIN)/python -m benchmarks.speed $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(FULL),--full)

lab: install  ## open JupyterLab on copies of the notebooks in lab/, which git ignores
	@mkdir -p lab; for book in notebooks/*.ipynb; do \
		copy=lab/$${book##*/}; \
		if [ ! -e "$$copy" ]; then cp "$$book" "$$copy"; \
		elif [ "$$book" -nt "$$copy" ]; then echo "$$copy is older than $$book; delete it to get a new copy"; fi; \
	done
	OMP_WAIT_POLICY=PASSIVE KMP_BLOCKTIME=0 $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/lab

check: install  ## could a study run here?
	$(BIN)/adlib check $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)")

clean:  ## remove .venv and caches (not reports/ and data/)
	rm -rf .venv *.egg-info .pytest_cache .ruff_cache .hypothesis
