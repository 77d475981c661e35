# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Files side by side, since many tests wait for processes. Those that start Ray nodes come last, two files at a time.
FILES = -m "not slow" --dist=loadfile --no-loadscope-reorder
TESTS = $(BIN)/python -m pytest $(FILES) -n auto --maxprocesses=4 --ignore=tests/cluster \
	&& $(BIN)/python -m pytest $(FILES) -n 2 tests/cluster

.PHONY: demo test check format chaos soak fuzz cluster-test bench lock clean

demo: $(VENV)/.installed
	test -e runs/demo/config.json || $(BIN)/python -m jobs.plan demo --measure > /dev/null
	$(BIN)/python -m jobs.pipeline demo --run runs/demo
	$(BIN)/python -m jobs.report --run runs/demo
	@printf '%s\n' '' 'Three things to do next, after `source $(VENV)/bin/activate`:' \
		'  python -m jobs.play --run runs/demo                       # drive in its dream, in a browser' \
		'  python -m jobs.watch --run runs/demo --in both            # film its dream next to the game' \
		'  python -m jobs.evolve --run runs/demo --generations 30    # evolve further, then jobs.score and jobs.report'

test: $(VENV)/.tested
	$(TESTS)

check: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS)

format: $(VENV)/.tested
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(VENV)/.tested
	$(BIN)/python -m pytest tests/cluster/test_chaos.py tests/cluster/test_evolution_chaos.py tests/cluster/test_sudden_end.py \
		--timeout=3600 -m "slow or not slow"
	$(BIN)/python -m pytest -m slow tests/jobs/test_sweep.py tests/cluster/test_tune_chaos.py tests/cluster/test_own_machines.py \
		tests/wm/experiments/test_rounds.py tests/wm/runs/test_lease.py --timeout=3600

# An hour, or SOAK_SECONDS.
soak: $(VENV)/.tested
	$(BIN)/python -m pytest tests/cluster/test_soak.py -m slow

# Other trials each time with `make fuzz SEED=1000`.
SEED ?= 1
fuzz: $(VENV)/.tested
	cd tests && for campaign in "agent --count 500" "lines --count 300" "run --count 200"; do \
		PYTHONPATH=..:. ../$(BIN)/python -m fuzzing $$campaign --seed $(SEED) --folder /tmp/wm-fuzzing || exit 1; done

cluster-test: $(VENV)/.tested
	$(BIN)/python -m pytest -m slow tests/cluster/test_aws_cluster.py tests/cluster/test_tls.py tests/jobs/test_submit.py \
		tests/jobs/test_lost_head.py tests/jobs/test_one_writer.py tests/wm/runs/test_faults.py --timeout=600

bench: $(VENV)/.installed
	$(BIN)/python -m jobs.bench

# .venv is made once and used again; it is brought up to date when pyproject.toml or constraints.txt changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt -e ".[test]"
	touch $@

# After versions in pyproject.toml have changed: a new environment without constraints, and its versions.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet ".[test]"
	{ grep '^#' constraints.txt; build/lock/bin/python -m pip freeze | grep -v -e '^torch==' -e '^world-models-ray'; } \
		> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
