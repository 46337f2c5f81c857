# Two commands matter: `make demo` shows what otelauto does, `make test` proves it.
SHELL := /bin/bash
PYTHON := .venv/bin/python
OBJECTS := src/otelauto/kernel/objects
BPF_SOURCES := $(wildcard bpf/*.c bpf/*.h) bpf/build.py
HOT_SOURCES := $(wildcard src/otelauto/hot/*.pyx src/otelauto/hot/*.pxd)
FUZZ_RUNS ?= 1000000
SOAK ?= 20
DEMO_SECONDS ?= 0
# "newest" is Debian's newest, "here" the one that runs.
KERNELS ?= 5.10. 6.1. 6.12
# Not empty: also what another run of CI shows (tests/vm/parts.py says what).
WHOLE ?=
# Once more with the programs of tier C, which every kernel has; the state there is in no socket.
OTHER_TIER := accounting calls endings midstream modes other_callers tables unread vectors verifier
MACHINE ?=
# Tests that load no BPF program and watch nobody. `make test` runs both parts at the same time; the
# other tests follow one by one, so that nothing but what they start themselves is in their way.
UNIT := tests/unit
PARSERS := tests/fuzz tests/hot tests/house tests/wire

.PHONY: install demo demo-agent wheel release test test-unit test-parsers test-arm64 test-docs test-image test-kernels test-kubernetes test-release test-wheel check docs audit lock bpf hot abi bench bench-vm fuzz sanitize soak interop clean

install: .venv/installed  ## .venv/bin/otelauto, with whatever is missing for it

.venv/installed: pyproject.toml setup.py tools/install.sh requirements/demo.txt $(BPF_SOURCES) $(HOT_SOURCES)
	tools/install.sh demo
	touch $@

# The development set includes everything that `install` gives.
.venv/developed: pyproject.toml setup.py tools/install.sh requirements/dev.txt
	tools/install.sh dev
	touch $@ .venv/installed

$(OBJECTS)/built: $(BPF_SOURCES) | .venv/developed
	$(PYTHON) bpf/build.py $(OBJECTS)
	touch $@

bpf: $(OBJECTS)/built  ## compile the BPF objects

build/hot: $(HOT_SOURCES) setup.py | .venv/developed
	$(PYTHON) setup.py -q build_ext --inplace
	touch $@

hot: build/hot  ## compile the extension modules

abi: bpf hot  ## generate the user-space view of bpf/abi.h, the pages of settings and names, the manual pages
	$(PYTHON) -m otelauto.kernel.contract $(OBJECTS)/sockets.bpf.o > src/otelauto/abi.py.new
	mv src/otelauto/abi.py.new src/otelauto/abi.py
	$(PYTHON) -m otelauto.config.docs > docs/config.md.new
	mv docs/config.md.new docs/config.md
	$(PYTHON) -m otelauto.reference > docs/names.md.new
	mv docs/names.md.new docs/names.md
	$(PYTHON) -m otelauto.man_pages docs/man

demo: .venv/installed  ## sample services, instrumented, in a live table; Ctrl-C ends it
	DEMO_SECONDS=$(DEMO_SECONDS) $(PYTHON) examples/demo/demo.py

demo-agent: .venv/installed  ## the services, an instrumenter, an agent, stores with passwords (Prometheus, nginx)
	DEMO_SECONDS=$(DEMO_SECONDS) $(PYTHON) examples/demo/agent_demo.py

check: bpf hot  ## style, types, and bandit's findings
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/bandit --quiet --recursive --configfile pyproject.toml src

audit: .venv/developed  ## known vulnerabilities of what is locked; fails where the package index cannot be asked
	.venv/bin/pip-audit --strict --disable-pip --requirement requirements/run.txt
	.venv/bin/pip-audit --strict --disable-pip --requirement requirements/dev.txt

lock: .venv/developed  ## write requirements/ anew, of pyproject.toml; LOCK=--upgrade takes the newest of all
	tools/lock.sh $(LOCK)

docs: .venv/developed  ## the documentation as a site, in build/site; a broken link is an error
	tools/site/install.sh
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# Skips are failures here: whatever a test needs, tests/install.sh brings.
test: check  ## everything, on this machine's kernel, with real servers
	tests/install.sh
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-unit test-parsers
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest $(UNIT:%=--ignore=%) $(PARSERS:%=--ignore=%)
	TEST_NO_SKIPS=1 TEST_TIER=C $(PYTHON) -m pytest -q $(OTHER_TIER:%=tests/kernel/test_%.py) \
		-k 'not refused_state'

test-unit: bpf hot  ## part of `make test`: the unit tests
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest -q -p no:cacheprovider $(UNIT)

test-parsers: bpf hot  ## part of `make test`: parsers, the fast lane, the rules of the house
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest -q -p no:cacheprovider $(PARSERS)

test-kernels: bpf hot  ## the kernel tests and some end-to-end tests under other KERNELS, emulated
	tests/install.sh
	tests/vm/install.sh $(KERNELS)
	$(PYTHON) -m tests.vm $(if $(WHOLE),--whole) $(KERNELS)

test-arm64: .venv/developed  ## the BPF objects for arm64 on an arm64 kernel, emulated
	tests/arm64/install.sh
	tools/libbpf/fetch.sh
	$(PYTHON) -m tests.arm64

wheel: .venv/developed  ## a wheel for every glibc from 2.28 and Python from 3.11, for MACHINE, in dist/
	tools/wheel.sh $(MACHINE)

release: check audit  ## what is published of this version, in dist/; says what hinders it
	$(PYTHON) -m tools.release dist

test-release: bpf hot  ## a rehearsal of that: both wheels are built twice and compared (minutes)
	tests/install.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/release/rehearsal.py

test-wheel: .venv/developed  ## the wheel in a Debian 11, which debootstrap makes (minutes, once)
	tests/install.sh
	tests/roots/install.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/roots/wheel.py

test-image: .venv/developed  ## the container image, made by the Dockerfile's lines without Docker (minutes, once)
	tests/install.sh
	tests/roots/image.sh
	tools/wheel.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/roots/image.py

test-docs: bpf hot  ## the README and the tutorial, word for word, in a Debian that has nothing (minutes)
	tests/install.sh
	tests/roots/install.sh fresh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/docs/fresh.py

interop: bpf hot  ## the OTLP exporters and the agent against a real Collector and Prometheus, built the first time
	tests/install.sh
	tests/interop/install.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/interop/collector.py tests/interop/pipelines.py \
		tests/interop/prometheus_side.py tests/interop/compressions.py tests/interop/example.py \
		tests/interop/remote_write.py

test-kubernetes: .venv/developed  ## the watch, the manifests and the chart: a real API server, etcd and helm, built the first time
	tests/kubernetes/install.sh
	TEST_NO_SKIPS=1 $(PYTHON) -m pytest tests/kubernetes/api_server.py tests/kubernetes/chart.py

soak: bpf hot  ## the end-to-end tests, SOAK times as long
	tests/install.sh
	TEST_NO_SKIPS=1 TEST_SCALE=$(SOAK) $(PYTHON) -m pytest tests/e2e --timeout=7200
	BENCH_SECONDS=$$((15 * $(SOAK))) $(PYTHON) -m benches growth

fuzz: bpf hot  ## FUZZ_RUNS mutated inputs for each parser, and exchanges for the fast lane
	TEST_FUZZ_RUNS=$(FUZZ_RUNS) $(PYTHON) -m pytest tests/fuzz tests/hot --timeout=7200

sanitize: hot  ## the fast lane's tests with the modules under AddressSanitizer and UBSan; needs gcc
	TEST_FUZZ_RUNS=$(FUZZ_RUNS) tools/sanitize.sh

bench: bpf hot  ## the figures of benches/RESULTS.md
	tests/install.sh
	$(PYTHON) -m benches

bench-vm: bpf hot  ## the figures of benches/RESULTS-VM.md; BENCH_ROWS and BENCH_COLUMNS ask for a part
	tests/install.sh
	tests/vm/install.sh 6.12
	$(PYTHON) -m benches.vm

clean:
	rm -rf .venv .build build dist src/*.egg-info src/otelauto/hot/*.so $(OBJECTS)
