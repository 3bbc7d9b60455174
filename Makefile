# make grade, make test and the rest. Each sets up .venv the first time.
#
# VENV=     (empty) uses the running interpreter as it is, and installs nothing.
# PYTHON=   the interpreter that makes .venv, Python 3.10 or newer.

VENV ?= .venv
PYTHON ?= python3
SUBMISSION ?= handout
RESULTS ?= results.json
SEED ?= 0
AUDIENCE ?=
ATTEMPT ?=
ALL ?= no
OUT ?=
SUBMISSIONS ?=
JOBS ?=
CLUSTER ?=
ARGUMENTS ?=
TORCH_INDEX ?=
LEADERBOARD ?= no
DEVICE ?= cpu
FAIL_UNDER ?= 0
TRAINING ?= yes
ONLY ?=
HTML ?=
SEEDS ?=
SCHEDULE ?= reduced
MNIST ?= mnist
CIFAR10 ?= cifar10
TESTS ?= grader/tests
PROCESSES ?= $(if $(strip $(VENV)),2)
STUDENTS ?=

CONSTRAINTS := grader/constraints.txt
ifeq ($(strip $(VENV)),)
RUN := $(PYTHON)
CORE :=
DEV :=
else
RUN := $(VENV)/bin/python
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
endif

.DEFAULT_GOAL := help
.PHONY: help grade watch grade-all test selfcheck lint doctor handout release gradescope figures calibrate bench-class bench-grade bench-hostile bench-train bench-training bench-workers lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

grade: $(CORE) ## Grade a submission: SUBMISSION=handout ONLY=2.1a RESULTS=results.json HTML=report.html SEED=0 AUDIENCE=student ATTEMPT=1 ALL=yes DEVICE=cpu TRAINING=yes FAIL_UNDER=0
	@$(RUN) -m grader grade "$(SUBMISSION)" --only "$(ONLY)" --results "$(RESULTS)" $(if $(HTML),--html "$(HTML)") --seed "$(SEED)" $(if $(AUDIENCE),--audience "$(AUDIENCE)") $(if $(ATTEMPT),--attempt "$(ATTEMPT)") $(if $(filter yes,$(ALL)),--all) --device "$(DEVICE)" --fail-under "$(FAIL_UNDER)" $(if $(filter no,$(TRAINING)),--no-training)

watch: $(CORE) ## Grade what has changed whenever a file is saved: SUBMISSION=handout ONLY=2.1a TRAINING=yes
	@$(RUN) -m grader watch "$(SUBMISSION)" --only "$(ONLY)" $(if $(filter command,$(origin TRAINING)),$(if $(filter yes,$(TRAINING)),--training))

test: $(DEV) ## Test the grader itself: TESTS=grader/tests PROCESSES=2
	$(RUN) -m pytest $(if $(PROCESSES),-n $(PROCESSES)) $(TESTS)

selfcheck: $(DEV) ## Grade the bank and mutants of the solution: what the checks miss; ONLY=2.1a SEED=0
	@$(RUN) -m grader.selfcheck --only "$(ONLY)" --seed "$(SEED)"

lint: $(DEV) ## Check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

doctor: $(CORE) ## Say what this machine has, and how a submission is isolated on it
	@$(RUN) -m grader doctor

handout: $(CORE) ## Make handout/ from solution/; FORCE=1 overwrites blocks that are filled in
	@$(RUN) -m grader handout $(if $(filter 1,$(FORCE)),--force)

grade-all: $(CORE) ## Grade a class: SUBMISSIONS=download.zip OUT=grades JOBS=2 CLUSTER=tls://host:8786 ONLY=2.1a TRAINING=yes; more by ARGUMENTS=
	@$(RUN) -m grader batch "$(SUBMISSIONS)" --out "$(or $(OUT),grades)" $(if $(JOBS),--jobs "$(JOBS)") $(if $(CLUSTER),--cluster "$(CLUSTER)") --only "$(ONLY)" $(if $(filter no,$(TRAINING)),--no-training) $(ARGUMENTS)

release: $(CORE) ## Make what students download: OUT=homework.zip
	@$(RUN) -m grader release --out "$(or $(OUT),homework.zip)"

gradescope: $(CORE) ## Make the autograder for Gradescope: OUT=autograder.zip TORCH_INDEX=URL ONLY=2.1a TRAINING=yes LEADERBOARD=no
	@$(RUN) -m grader gradescope --out "$(or $(OUT),autograder.zip)" --torch-index "$(TORCH_INDEX)" --only "$(ONLY)" $(if $(filter no,$(TRAINING)),--no-training) $(if $(filter yes,$(LEADERBOARD)),--leaderboard)

figures: $(DEV) ## Train every model and write solution/report/: SCHEDULE=reduced PART=3 MNIST=mnist CIFAR10=folder:PATH
	@$(RUN) -m grader.figures --schedule "$(SCHEDULE)" --mnist "$(MNIST)" --cifar10 "$(CIFAR10)" --part "$(or $(PART),all)"

calibrate: $(CORE) ## Grade what is right, and what is wrong, at many seeds: SEEDS=1000 POWER_SEEDS=100 ONLY=2.1a DEVICE=cpu
	@$(RUN) -m grader.bench.calibrate --seeds $(or $(SEEDS),1000) --power-seeds $(or $(POWER_SEEDS),100) --only "$(ONLY)" --device "$(DEVICE)"

bench-grade: $(CORE) ## Time make grade against import torch, and a class against one process each: STUDENTS=500
	@$(RUN) -m grader.bench.grade --students $(or $(STUDENTS),500)

bench-class: $(CORE) ## Kill the grading of a class ten times: the same grades, and memory: STUDENTS=500
	@$(RUN) -m grader.bench.interrupted --students $(or $(STUDENTS),500)

bench-hostile: $(CORE) ## Grade a class with ten hostile hand-ins in 4 GB: the same results, and in what time: STUDENTS=50 JOBS=2
	@$(RUN) -m grader.bench.hostile_class --students $(or $(STUDENTS),50) --jobs $(or $(JOBS),2)

bench-train: $(CORE) ## Images per second of train.py against a plain loop, MNIST from DATA_DIR; and what samplers cost
	@$(RUN) -m grader.bench.train
	@$(RUN) -m grader.bench.sampling

bench-training: $(CORE) ## Train as the grader does at many seeds, and every wrong filling: SEEDS=20
	@$(RUN) -m grader.bench.training --seeds $(or $(SEEDS),20) --fillings

bench-workers: $(CORE) ## Start a thousand workers: time, memory, and what they leave behind
	@$(RUN) -m grader.bench.workers

lock: ## Choose the versions in grader/constraints.txt again (needs uv)
	uv pip compile --universal --python-version 3.10 --extra dev --extra cluster --no-header --no-annotate pyproject.toml -o $(CONSTRAINTS)

clean: ## Remove .venv and what the tools left
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; say which with make PYTHON=python3.12" >&2; exit 2; }
	@echo "Making $(VENV) and installing PyTorch into it: about two minutes and 5.5 GB of disk, this once."
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "error: no virtual environment; on Debian and Ubuntu, apt install python3-venv" >&2; exit 2; }

$(VENV)/.core-installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@$(RUN) -m pip install $(if $(wildcard $@),--quiet) --disable-pip-version-check -c $(CONSTRAINTS) . || \
		{ echo "error: the installation failed, see above; fix the cause and run make again" >&2; exit 2; }
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.core-installed
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) '.[dev]' || \
		{ echo "error: the installation failed, see above; fix the cause and run make again" >&2; exit 2; }
	@touch $@
