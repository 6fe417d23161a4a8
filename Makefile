# make test and make demo are complete on a fresh clone: they build .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RESULTS := benchmarks/results

FUZZ_SECONDS ?= 600

.PHONY: test lint docs demo native fuzz sanitize examples measurements embedding engines studies auto guarantee post-training demo-seeds figures clean .venv

# Two files of tests at a time on two cores.
test: lint
	$(BIN)/pytest -n auto --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/demo.py --out runs/demo

# The C library and its example program, into build/cmake. Needs cmake.
native:
	cmake -S runtime/native -B build/cmake -DCMAKE_BUILD_TYPE=Release -DCOC_EXAMPLE=ON
	cmake --build build/cmake --parallel

# Mutants of .coc files for FUZZ_SECONDS, under sanitizers. Needs clang and libclang-rt-14-dev (Debian).
fuzz: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/fuzz.py --seconds $(FUZZ_SECONDS)

# The C core under sanitizers: every kernel at the borders of its shapes on every level, whole models, refused files
# (address, undefined behaviour); pools, sessions in threads, forks (thread). Needs gcc.
sanitize: $(INSTALLED)
	$(BIN)/pytest tests/native -k "not aarch64"

# Hours: the CIFAR-10 chains, their exports and benchmarks, into examples/.
examples: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python benchmarks/scripts/examples.py
	$(BIN)/python benchmarks/scripts/packed_weights.py --json benchmarks/results/packed_weights.json

# Kernels and whole models against ONNX Runtime: minutes, on a quiet x86-64 machine. Then the integers of whole
# test splits on every CPU level: half an hour. Needs the images in data/cifar10 and the networks in data/weights.
measurements: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/conv_kernels.py --json $(RESULTS)/conv_kernels.json
	$(BIN)/python benchmarks/scripts/avx2_only.py benchmarks/scripts/conv_kernels.py --json $(RESULTS)/conv_kernels_avx2_only.json
	$(BIN)/python benchmarks/scripts/native_models.py --json $(RESULTS)/native_models.json
	$(BIN)/python benchmarks/scripts/avx2_only.py benchmarks/scripts/native_models.py --json $(RESULTS)/native_models_avx2_only.json
	$(BIN)/python benchmarks/scripts/exactness.py --json $(RESULTS)/exactness.json

# The programs of docs/embed.md on the network of make demo, and eight threads on one session: five minutes on a
# quiet machine. Needs cmake.
embedding: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/embedding.py --seconds 60 --json $(RESULTS)/embedding.json

# The examples and the digits demo on ONNX's evaluator, tract and OpenVINO. Needs `make demo` and data/cifar10.
engines: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[engines]'
	$(BIN)/python benchmarks/scripts/engines.py --json $(RESULTS)/engines.json

# The order law on digits (half an hour) and on CIFAR-10 (two hours; needs what `make examples` trained): all their
# conclusions.
studies: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/order_law.py digits --workers 2
	$(BIN)/python benchmarks/scripts/order_law.py cifar10-pairs --workers 2
	$(BIN)/python benchmarks/scripts/order_law.py cifar10-sequences --workers 2

# Searches for better settings than those of recipes/digits.toml (minutes) and of the CIFAR-10 example (an hour;
# needs what `make examples` trained). An interrupted one continues.
auto: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/auto.py digits
	$(BIN)/python benchmarks/scripts/auto.py cifar10

# How often promises about early exits are broken over 200 splits of the test images, and what keeping them costs:
# half an hour. Needs data/cifar10.
guarantee: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/guarantee.py --json $(RESULTS)/guarantee.json

# What quantization without training costs on public CIFAR-10 networks: minutes. Needs data/cifar10 and data/weights.
post-training: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/post_training.py --json $(RESULTS)/post_training.json

# Whether the demo depends on luck: ten seeds on two kinds of CPU, an hour. An interrupted one continues.
demo-seeds: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/demo_seeds.py --json $(RESULTS)/demo_seeds.json

# The figures of README.md and of pages in docs, and the picture, from the committed JSON; programs in docs from their files;
# the C core's limits and the tables of docs/format.md from coc_runtime.
figures: $(INSTALLED)
	$(BIN)/python benchmarks/scripts/readme.py
	$(BIN)/python runtime/generate.py

# The site of README.md, docs/ and the Python reference, into build/site; a warning stops it.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.venv: $(INSTALLED)

# A stamp, so that an installation cut short is taken up again.
$(INSTALLED): setup.cfg setup.py pyproject.toml $(wildcard runtime/native/*.[ch] runtime/native/ops/*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Keeps .venv and runs/, which take minutes and hours to make again.
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
