# All of the project in a few commands; `make` lists them. For GNU make 3.81 or newer, which is what macOS ships.
VENV   = .venv
PYTHON = python3
RECIPE = quickstart
NAME   = $(RECIPE)
JOB    = finetune
ARGS   =

BIN      = $(VENV)/bin
OUT      = _runs/$(NAME)
STAMP    = $(VENV)/installed
RECIPES  = $(sort $(basename $(notdir $(wildcard nbs/recipes/*.yaml))))
JOBS     = $(sort $(basename $(notdir $(wildcard nbs/runs/*.ipynb))))
CHAPTERS = $(sort $(wildcard nbs/[0-9]*.ipynb nbs/*/[0-9]*.ipynb))

# The kernel is the environment's own, whatever the user has installed elsewhere. What the notebook prints, its progress bars included, goes to
# the terminal as it comes. Without papermill's own traceback an error is the notebook's: one line, if it is the user's to mend.
# A SIGTERM, which clusters send before they take a machine away, is handed on to the kernel, where the training writes a checkpoint.
PAPERMILL = exec env JUPYTER_PREFER_ENV_PATH=1 TQDM_MININTERVAL=1 $(BIN)/python -c \
  'import psutil, signal, sys; sys.tracebacklimit = 0; from papermill.__main__ import papermill; \
   signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in psutil.Process().children()]); papermill(prog_name="papermill")' \
  --no-progress-bar --log-level WARNING --stdout-file - --stderr-file -

define folder
@mkdir -p "$(OUT)" 2>/dev/null && test -w "$(OUT)" || { \
  echo "UserError: cannot write $(OUT); choose another NAME, or make its folder writable" >&2; exit 1; }
endef

# $(1) notebook, $(2) its recipe, unless it reads that itself
define execute
$(folder)
@echo "$(1)$(if $(2), with $(2)), into $(OUT)"
@$(PAPERMILL) --cwd nbs $(1) "$(OUT)/$(notdir $(1))" $(if $(2),-f $(2)) -p out_dir "$(OUT)" $(ARGS)
@if test -f "$(OUT)/metrics.json"; then $(BIN)/python -m whisper_tutorial.evaluation.report "$(OUT)"; else \
  $(BIN)/jupyter nbconvert --log-level ERROR --to html --no-input --output report "$(OUT)/$(notdir $(1))" && echo "report: $(OUT)/report.html"; fi
endef

.PHONY: help install known quickstart run plan slurm prepare compare nano accents bench gpu test test-all notebooks readme docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "recipes: $(RECIPES)"
	@echo "jobs:    $(JOBS)"
	@echo "ARGS go to papermill: ARGS=\"-p seed 1 -y 'smoke: true'\""

install: $(STAMP) ## make .venv and install everything that is needed into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "UserError: Python 3.11 or newer is needed, and $(PYTHON) is `$(PYTHON) --version 2>&1`; install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv "$(VENV)"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@mkdir -p "$(VENV)/etc/ipython"
	@echo 'c.IPKernelApp.log_level = "ERROR"  # no warning that a kernel on this machine is spoken to without encryption' > "$(VENV)/etc/ipython/ipython_kernel_config.py"
	@touch "$@"

known: # a mistyped name is said at once
	@test -f "nbs/recipes/$(RECIPE).yaml" || { echo "UserError: there is no recipe $(RECIPE); there are: $(RECIPES)" >&2; exit 1; }
	@test -f "nbs/runs/$(JOB).ipynb" || { echo "UserError: there is no job $(JOB); there are: $(JOBS)" >&2; exit 1; }

quickstart: $(STAMP) ## the main job: a small Whisper learns four accents, in minutes, offline; ends with before and after
	$(call execute,nbs/quickstart.ipynb)

run: known $(STAMP) ## a run of any recipe: make run RECIPE=quickstart NAME=mine JOB=finetune ARGS="-p seed 1"
	$(call execute,nbs/runs/$(JOB).ipynb,nbs/recipes/$(RECIPE).yaml)

PLAIN   = import sys; sys.excepthook = lambda kind, e, _: print(f"{kind.__name__}: {e}", file=sys.stderr);
MACHINE = here
HOURS   =
plan: known $(STAMP) ## what a recipe costs before it runs: make plan RECIPE=large-v2-8xa100 MACHINE=a100-80 HOURS=1500000
	@$(BIN)/python -c '$(PLAIN) from whisper_tutorial.training.planner import plan; \
	  from whisper_tutorial.training.recipe import load_recipe; \
	  p = plan(load_recipe(sys.argv[1]), sys.argv[2], hours=float(sys.argv[3]) if sys.argv[3] else None); \
	  print(p, "GB on each, by part and stage:", p.memory.round(1).to_string(), sep="\n")' "$(RECIPE)" "$(MACHINE)" "$(HOURS)"

MACHINES = 1
slurm: known $(STAMP) ## print a job for SLURM: make -s slurm RECIPE=large-v2-8xa100 MACHINES=1 > job.sh && sbatch job.sh
	@mkdir -p _runs  # where the job's output goes
	@$(BIN)/python -c '$(PLAIN) from whisper_tutorial.training.distributed import slurm_script as s; \
	  print(s(sys.argv[1], sys.argv[2], int(sys.argv[3]), args=sys.argv[4]), end="")' "$(RECIPE)" "$(NAME)" "$(MACHINES)" "$(ARGS)"

prepare: NAME = prepare
prepare: $(STAMP) ## check a corpus, and write what can be trained on: make prepare NAME=mine ARGS="-p data folder:my/clips"
	$(call execute,nbs/runs/prepare.ipynb)

nano: $(STAMP) ## make the embedded model, data/nano, again: about an hour on two cores
	@$(MAKE) --no-print-directory run JOB=pretrain RECIPE=nano NAME=nano ARGS="$(ARGS)"
	@$(MAKE) --no-print-directory run JOB=pretrain RECIPE=nano-mp3 NAME=nano-mp3 \
	  ARGS="-p recode _runs/nano/speech -p publish data/nano $(ARGS)"

compare: NAME = compare
compare: $(STAMP) ## put runs side by side: make compare ARGS="-p runs '_runs/rate-*'"
	$(call execute,nbs/runs/compare.ipynb)

accents: NAME = accents
accents: $(STAMP) ## make the embedded corpus, data/accents, again
	$(folder)
	@$(PAPERMILL) --cwd nbs nbs/runs/make_accents.ipynb "$(OUT)/make_accents.ipynb" -p out_dir data/accents $(ARGS)

bench: NAME = benchmarks
bench: $(STAMP) ## measure speed and memory: the table of nbs/benchmarks.ipynb on your machine
	$(call execute,nbs/benchmarks.ipynb)

gpu: NAME = gpu
gpu: $(STAMP) ## measure training on this machine's GPU: speed, use of its peak, memory; a few minutes
	$(call execute,nbs/runs/gpu.ipynb)

test: $(STAMP) ## prove that the project works: about 20 minutes on two cores
	@# the chapters, whose time has a bound, have the machine for themselves; 5: ARGS chose none of them
	$(BIN)/python -m pytest tests/test_chapters.py $(ARGS) || [ $$? = 5 ]
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/test_chapters.py $(ARGS)

test-all: $(STAMP) ## the same with every notebook under papermill too, slow cells included
	$(BIN)/python -m pytest --all $(ARGS)

notebooks: $(STAMP) ## export the package, execute the chapters in place, and clean them
	$(BIN)/nbdev_export
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace $(CHAPTERS)
	$(BIN)/nbdev_clean

readme: $(STAMP) ## make README.md of nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level WARN --to markdown --no-input --stdout nbs/index.ipynb | \
	  sed -E -e 's#\]\(([a-zA-Z0-9_./-]*)\)#](nbs/\1)#g' -e 's#(src=")([a-zA-Z0-9_./-]*")#\1nbs/\2#g' > README.new
	@test -s README.new && mv README.new README.md

docs: $(STAMP) ## render the site into _docs (needs Quarto)
	@command -v quarto >/dev/null || test -x $(BIN)/quarto || { \
	  echo "UserError: the site needs Quarto; get it from quarto.org, or by $(BIN)/python -m pip install -e '.[docs]'" >&2; exit 1; }
	@touch README.md  # it is made by `make readme`, not by nbdev_docs
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_docs

clean: ## remove what was built, but neither .venv nor _runs
	rm -rf build dist _docs _proc *.egg-info .pytest_cache .hypothesis nbs/nbdev.yml
	find nbs tests whisper_tutorial -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
