# Everything a newcomer or CI needs. As root on Debian 12 or later: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --only-binary=:all: --require-hashes -r

.PHONY: help demo test check unit kernel cluster cluster-down cluster-test attack fuzz fuzz-parsers bench golden schema uml venv lock outdated clean image archive completions krew

help:
	@echo "make demo    a lab, a Service traced through it, a broken one diagnosed"
	@echo "make test    every tier: unit, kernel, uml, cluster (kernel and cluster need root)"
	@echo "make cluster a real Kubernetes on this machine, left running; make cluster-down ends it"
	@echo "make uml     the tier on a second kernel, User Mode Linux: IPVS and IPIP; no root"
	@echo "make check   format, lint, types, import contracts, dependencies"
	@echo "make lock    choose the version of every dependency anew, within the ranges; LOCK=--upgrade takes the newest"
	@echo "make outdated  the unit tier with the newest versions, and what differs from the lock"
	@echo "make attack  hostile pods, servers and bundles, under limits of memory and time"
	@echo "make fuzz    random rules and packets against the kernel until stopped (as root)"
	@echo "make fuzz-parsers  every reader of rules and dumps under coverage-guided fuzzing"
	@echo "make image   the agent's image, without a container tool: dist/kptrace-image.tar"
	@echo "make archive kptrace as one file for this platform: dist/kptrace.pyz"
	@echo "make krew    an archive for each platform and the manifest with their sums: dist/krew"
	@echo "make completions  the words that shells complete with, from the command line itself"
	@echo "make bench   what explaining one of 10,000 Services costs (as root; minutes)"
	@echo "make golden  rewrite the golden files; the git diff is the review"
	@echo "make schema  rewrite the JSON Schemas from the model"

venv: $(VENV)/.done

$(VENV)/.done: pyproject.toml tests/tools/install.sh tests/requirements/dev.txt
	@PYTHON='$(PYTHON)' sh tests/tools/install.sh $(VENV) tests
	@touch $@

# kptrace and what a lab needs, no more
$(VENV)/.demo: pyproject.toml tests/tools/install.sh $(wildcard plugins/kubectl/build/requirements/*.txt)
	@PYTHON='$(PYTHON)' sh tests/tools/install.sh $(VENV)
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python tests/tools/demo.py

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/tools/dependencies.py

# so many at a time: most of a tier of labs is waiting
JOBS ?= 2

test: venv
	$(BIN)/python -m pytest -q -n $(JOBS)

unit: venv
	$(BIN)/python -m pytest -q -m 'not kernel and not uml and not cluster'

kernel: venv
	$(BIN)/python -m pytest -q -m kernel

cluster-test: venv
	$(BIN)/python -m pytest -q -m cluster

# NAME=x for one of several; PROXY=iptables|iptables-legacy|nftables BACKEND=vxlan|host-gw
cluster: venv
	@PYTHONPATH=tests $(BIN)/python -m cluster up $(if $(NAME),--name $(NAME)) \
	  $(if $(PROXY),--proxy $(PROXY)) $(if $(BACKEND),--backend $(BACKEND))

cluster-down: venv
	@PYTHONPATH=tests $(BIN)/python -m cluster down $(if $(NAME),--name $(NAME))

uml: venv
	$(BIN)/python -m pytest -q tests/uml

# hostile pods, servers and bundles; prints how many were tried and how many got through
attack: venv
	$(BIN)/python -m pytest -q tests/attack

# FUZZ='--seed 7 --seconds 600'; each disagreement becomes a case below tests/cases/differential
fuzz: venv
	PYTHONPATH=tests $(BIN)/python -m differential $(FUZZ)

# READER=nft-json for one reader; PARSERS='-max_total_time=600' for longer
fuzz-parsers: venv
	$(PIP) tests/requirements/fuzz.txt
	PYTHONPATH=tests $(BIN)/python -m parsers $(READER) $(PARSERS)

# the whole table of costs as Markdown; BENCH='--rounds 5 --only saved' for some of it
bench: venv
	@$(BIN)/python tests/bench $(BENCH)

golden: venv
	$(BIN)/python -m pytest -q tests/render tests/test_replay_cases.py --update-golden

schema: venv
	$(BIN)/python -m pytest -q tests/render -k the_committed_schema --update-golden

# LOCK='--upgrade', or LOCK='--upgrade-package msgspec'
lock: venv
	$(PIP) tests/requirements/lock.txt
	$(BIN)/python tests/tools/lock.py $(LOCK)

# in an environment of its own, anew each time; what differs is printed whether the tests pass or not
outdated:
	@PYTHON='$(PYTHON)' sh tests/tools/install.sh $(NEWEST) newest
	@$(NEWEST)/bin/python -m pytest -q -n $(JOBS) -m 'not kernel and not uml and not cluster'; \
	  status=$$?; $(NEWEST)/bin/python tests/tools/outdated.py; exit $$status

completions: venv
	$(BIN)/python plugins/kubectl/build/completions.py

# IMAGE='--name registry.example/kptrace:1'
image: venv
	$(BIN)/python plugins/kubectl/build/image.py $(IMAGE)

# ARCHIVE='--platform linux/arm64'
archive: venv
	$(BIN)/python plugins/kubectl/build/archive.py $(ARCHIVE)

# KREW='--platform linux/amd64'
krew: venv
	$(BIN)/python plugins/kubectl/build/krew.py $(KREW)

clean:
	rm -rf $(VENV) $(NEWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis
