.PHONY: help demo test test-unit test-integration test-faults-sample test-faults test-e2e lint generate bench clean clean-caches
PYTEST = "$$(hack/venv)/bin/pytest"

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

demo: ## A cluster, the operator, a model served, a better one put in place by canary under load, bad ones withdrawn
	hack/demo

test: test-unit test-integration test-faults-sample test-e2e ## All tests (sets up all that they need)

test-unit: ## Pure policy, the server, the tools
	$(PYTEST) tests/unit -n 2

test-integration: ## The resource and the chart against a real API server
	$(PYTEST) tests/integration

test-e2e: ## Real pods, real Envoy, real traffic
	SLIPWAY_KEEP=1 $(PYTEST) tests/e2e -n 2 --dist loadfile -m "not alone"
	$(PYTEST) tests/e2e -m alone

test-faults-sample: ## The operator killed, refused, misled: a sample, as CI runs it
	$(PYTEST) tests/faults

test-faults: ## All of it: hours, resumed where it was cut short; the report is build/faults.md
	tests/faults/run --results build/faults.jsonl --report build/faults.md

lint: ## Style, types, import contracts, generated files
	hack/lint

generate: ## Write the CRD and the field reference from the API's types
	"$$(hack/venv)/bin/python" hack/generate

bench: ## Figures beside their goals and peers
	"$$(hack/venv)/bin/python" tests/bench/run all

clean: ## Remove the clusters and what they left
	hack/clean

clean-caches: ## And the caches: binaries, images, the Python environment
	hack/clean --caches
