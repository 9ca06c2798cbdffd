# Every target is one script in scripts/, where the reasons are; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help venv check test demo demo-down sanity lint importer units molecule bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

venv: ## .venv with all tools, made once per change of requirements
	@scripts/setup

check: venv ## format, lint, types and unit tests: for every commit
	@scripts/check

test: venv ## everything, real Engines included: what CI runs
	@scripts/test

demo: venv ## five hosts behind an air gap get two images
	@scripts/demo

demo-down: venv ## remove the hosts of the demo
	@scripts/demo-down

sanity: venv ## ansible-test sanity on the oldest and the newest ansible-core
	@scripts/sanity

lint: venv ## ansible-lint and shellcheck
	@scripts/lint

importer: venv ## build, install, and what Galaxy says about it
	@scripts/importer

units: venv ## unit tests on every Python of this machine
	@.venv/bin/pytest -q -n auto && scripts/units-other-pythons

molecule: venv ## scenarios and tests on the test fleet, which must be up
	@scripts/molecule && scripts/integration

bench: venv ## docs/benchmarks.md: beside community.docker and plain docker, on a quiet machine
	@scripts/bench

clean: ## remove environments and caches
	@scripts/clean
