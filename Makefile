.PHONY: help demo test test-unit test-integration test-e2e lint generate bench clean clean-caches
PYTEST = "$$(hack/venv)/bin/pytest"

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

demo: ## A cluster, the operator, a model served, a better one put in place by canary under load, bad ones withdrawn
	hack/demo

test: test-unit test-integration test-e2e ## All tests (sets up all that they need)

test-unit: ## Pure policy, the server, the tools
	$(PYTEST) tests/unit

test-integration: ## The resource and the chart against a real API server
	$(PYTEST) tests/integration

test-e2e: ## Real pods, real Envoy, real traffic
	$(PYTEST) tests/e2e

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
