# Two commands on a fresh machine with Python 3.11: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := run
.PHONY: run test check models docs clean

run: $(STAMP)
	$(BIN)/lepton-compress run recipes/digits-cnn.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models: $(STAMP)
	$(BIN)/python -m reference_models.digits_cnn.train

docs: $(STAMP)
	$(BIN)/python -m docs.generate

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --constraint constraints.txt --editable ".[detection,dev,digits,mlflow,plot,text]"
	touch $@

clean:
	rm -rf $(VENV) .lepton runs .mypy_cache .pytest_cache .ruff_cache
