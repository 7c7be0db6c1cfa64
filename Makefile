# Two commands on a fresh machine with Python 3.11: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := run
.PHONY: run test check models docs results clean

run: $(STAMP)
	$(BIN)/lepton-compress run recipes/digits-cnn.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models: $(STAMP)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m reference_models.train_all

docs: $(STAMP)
	$(BIN)/python -m docs.generate

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --constraint constraints.txt --editable ".[detection,dev,digits,efficientnet,executorch,ethos-u,images,lightning,litert,microcontroller,mlflow,openvino,placement,plot,serving,text,transformers]"
	touch $@

results: $(STAMP)
	$(BIN)/python -m docs.results

clean:
	rm -rf $(VENV) .lepton runs .mypy_cache .pytest_cache .ruff_cache
