# For developers. Users need ./demo and ./test only.
#   check         linters, types, layer rules          test       everything that ./test runs
#   lab           the lab's tests alone                demo       ./demo
#   bench-hot     measures hot failover, writes build/bench/hot.json
#   build         the wheel, into dist/                man        manual pages, into build/man/
#   schema        JSON Schema of the configuration, into build/
#   requirements  locks the dependencies anew          clean      removes what was made
BIN := .venv/bin
COMPILE := CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile --quiet --upgrade \
	--generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links

.PHONY: setup check test lab demo bench-hot build man schema requirements prove-fresh clean

setup:
	./test --setup

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test:
	./test

lab:
	./test tests/lab

demo:
	./demo

bench-hot: setup
	$(BIN)/python tests/bench/hot.py

build: setup man
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

man: setup
	$(BIN)/python packaging/man.py --output build/man docs/*.[1-8].md

schema: setup
	mkdir -p build
	$(BIN)/carpool check --schema > build/carpool.schema.json

# pip-tools is the only tool here that ./test does not need, so it is installed on demand.
requirements: setup
	$(BIN)/python -m pip install --quiet pip-tools
	$(COMPILE) --output-file requirements.txt pyproject.toml
	$(COMPILE) --extra dev --output-file requirements-dev.txt pyproject.toml packaging/build.in

prove-fresh:
	packaging/prove-fresh

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f src/carpool/drivers/bpf/*.bin
	find src tests packaging -name __pycache__ -type d -prune -exec rm -rf {} +
