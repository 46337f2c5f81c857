# Two commands matter: `make demo` shows what otelauto does, `make test` proves it.
SHELL := /bin/bash
PYTHON := .venv/bin/python
OBJECTS := src/otelauto/kernel/objects
BPF_SOURCES := $(wildcard bpf/*.c bpf/*.h) bpf/build.py
FUZZ_RUNS ?= 1000000
SOAK ?= 20
DEMO_SECONDS ?= 0

.PHONY: install demo test check bpf abi bench fuzz soak interop clean

install: .venv/installed  ## .venv/bin/otelauto, with whatever is missing for it

.venv/installed: pyproject.toml setup.py tools/install.sh $(BPF_SOURCES)
	tools/install.sh demo
	touch $@

# The development set includes everything that `install` gives.
.venv/developed: pyproject.toml setup.py tools/install.sh
	tools/install.sh dev
	touch $@ .venv/installed

$(OBJECTS)/built: $(BPF_SOURCES) | .venv/developed
	$(PYTHON) bpf/build.py $(OBJECTS)
	touch $@

bpf: $(OBJECTS)/built  ## compile the BPF objects

abi: bpf  ## generate the user-space view of bpf/abi.h, and the settings' documentation
	$(PYTHON) -m otelauto.kernel.contract $(OBJECTS)/sockets.bpf.o > src/otelauto/abi.py.new
	mv src/otelauto/abi.py.new src/otelauto/abi.py
	$(PYTHON) -m otelauto.config.docs > docs/config.md.new
	mv docs/config.md.new docs/config.md

demo: .venv/installed  ## sample services, instrumented, in a live table; Ctrl-C ends it
	DEMO_SECONDS=$(DEMO_SECONDS) $(PYTHON) examples/demo/demo.py

check: bpf  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Skips are failures here: whatever a test needs, tests/install.sh brings.
test: check  ## everything, on this machine's kernel, with real servers
	tests/install.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest

interop: bpf  ## the OTLP exporters against a real OpenTelemetry Collector, built the first time
	tests/interop/install.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/interop/collector.py

soak: bpf  ## the end-to-end tests, SOAK times as long
	tests/install.sh
	TEST_NO_SKIPS=1 TEST_SCALE=$(SOAK) $(PYTHON) -m pytest tests/e2e --timeout=7200

fuzz: bpf  ## FUZZ_RUNS mutated inputs for each parser
	TEST_FUZZ_RUNS=$(FUZZ_RUNS) $(PYTHON) -m pytest tests/fuzz --timeout=7200

bench: bpf  ## the figures of benches/RESULTS.md
	tests/install.sh
	$(PYTHON) -m benches

clean:
	rm -rf .venv .build build dist src/*.egg-info $(OBJECTS)
