# Every target first makes sure of the environment in .venv; only `make help` needs none.
PYTHON ?= python3
# of a demo; empty: the folder that `make help` names
OUT ?=
BIN := .venv/bin
READY := .venv/.ready
CHECKED := gan_plugin tools benchmarks tests configs $(wildcard projects)

.DEFAULT_GOAL := help
.PHONY: help env demo demo-tuning demo-cars demo-coigan test lint bench gpu clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

env: $(READY)  ## build .venv: pinned packages, Detectron2, this package

$(READY): requirements.txt pyproject.toml setup.py tools/install_detectron2.py tools/_detectron2_wheel.py tools/detectron2-864913f.blobs
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13, which the pinned packages need: name one that is, as in make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 2; }
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv
	@# its files are those of opencv-python; a .venv of before has it
	@$(BIN)/python -m pip -qq uninstall -y opencv-python-headless
	@echo "Installing requirements.txt (a few minutes and about 6 GB the first time) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(BIN)/python tools/install_detectron2.py
	@echo "Installing gan_plugin (editable) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --use-pep517 -e .
	@touch $@

# The command sets OMP_WAIT_POLICY=PASSIVE: threads that spin as they wait cost the more the busier the cores are.
demo: env  ## train and compare on a toy data set; OUT=folder to choose where (default output/demo)
	$(BIN)/python tools/demo.py --out $(or $(OUT),output/demo)

demo-tuning: env  ## tune, train and judge on a toy Cityscapes, all phases in miniature (OUT: output/demo-tuning)
	$(BIN)/python projects/CityscapesTuning/study.py demo --out $(or $(OUT),output/demo-tuning)

# One thread: these networks are so narrow that a second one mostly waits, and harms where other work shares the cores.
demo-cars: env  ## toy cars: crops, two small GANs, scores, new scenes (OUT: output/demo-cars)
	OMP_NUM_THREADS=1 $(BIN)/python projects/CarGAN/demo_cars.py --out $(or $(OUT),output/demo-cars)

# One thread, for the same reason.
demo-coigan: env  ## paint defects into toy steel, and use them as training data (OUT: output/demo-coigan)
	OMP_NUM_THREADS=1 $(BIN)/python projects/COIGAN/demo_coigan.py --out $(or $(OUT),output/demo-coigan)

# One thread a process: the two workers would otherwise fight for the cores. Each begins with a half of the tests as it
# stands and takes from the other's end once it is done, so that both seldom make the same fixture. Byte code is kept
# whatever the environment says, since compiling the tests takes half a minute of each worker.
test: env  ## run the tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: env  ## check style, format and types; changes nothing
	$(BIN)/ruff check $(CHECKED) setup.py
	$(BIN)/ruff format --check $(CHECKED) setup.py
	$(BIN)/mypy

bench: env  ## measure speed and memory
	$(BIN)/python tools/benchmark.py

gpu: env  ## tests, training and speed on a GPU, in 8 minutes; without one in miniature (OUT: output/gpu)
	$(BIN)/python tools/gpu_check.py --out $(or $(OUT),output/gpu)

clean:  ## delete .venv, caches and build files; keeps output/ and datasets/
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
