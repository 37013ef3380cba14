# Everything runs from .venv, which the first target that needs it sets up from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

# What the other suites are about, such as nodes, recovery and reports, is Ray's own affair there.
CONTRACT_ON_RAY := $(addprefix tests/runtime/contract/test_contract,.py _actors.py _api.py _earlier_runtimes.py _environments.py \
	_failures.py _objects.py _scheduling.py _tasks.py)

.PHONY: train test slow test-ray check lint format bench bench-rl proto clean setup

train: setup         ## PPO on CartPole-v1 until it is solved, into runs/cartpole
	$(BIN)/shoal train ppo CartPole-v1 --workers 2 --seed 0 --total-timesteps 300000 --stop-return 475 \
		--run-dir runs/cartpole --overwrite

test: setup          ## the tests, without the long ones, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: .venv/extras   ## the long tests: whole learning runs, stress, packaging, environments of the extras
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

test-ray: .venv-ray/installed         ## the runtime's contract, the examples, datasets and trainings on a real local Ray
	SHOAL_TEST_ENGINES=ray PYTHONPATH=$(CURDIR)/tests:$(CURDIR)/tests/runtime:$(CURDIR)/tests/runtime/contract .venv-ray/bin/python -m pytest $(CONTRACT_ON_RAY)
	.venv-ray/bin/python -m pytest tests/on_ray

check: lint test     ## what must hold before a commit

lint: setup          ## format, style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup        ## rewrite the source in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup .venv-peers/installed         ## the numbers in the README, measured again
	$(BIN)/python benchmarks/runtime_latency.py --peer-python .venv-peers/bin/python \
		--rows benchmarks/rows/runtime_latency.jsonl
	$(BIN)/python benchmarks/ppo_cartpole.py --peer-python .venv-peers/bin/python

bench-rl: .venv/extras .venv-peers/installed         ## training and sampling against the peers, in 12 minutes, into benchmarks/rl/rows
	$(BIN)/python benchmarks/rl/run.py --peer-python .venv-peers/bin/python

.venv-peers/installed: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@

.venv-ray/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev,ray]"
	@touch $@

setup: .venv/installed

# All extras but envpool, whose 740 MB would be most of it: its tests skip without it, and say so.
.venv/extras: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev,agents,atari,box2d,lightgbm,lm,mujoco,reasoning,video]"
	@touch $@

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Shoal needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

proto: setup         ## generate the code of the protocol with simulators outside
	$(BIN)/python -m grpc_tools.protoc -I envs/proto --python_out=envs/proto --pyi_out=envs/proto \
		envs/proto/shoal_simulators.proto

clean:               ## remove what the targets above have made, but for runs/
	rm -rf .venv .venv-ray .venv-peers build dist *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
