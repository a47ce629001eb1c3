SHELL := bash
GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod

# What is run under the race detector too: everything below the stores.
CRAFTS := $(addsuffix /...,$(wildcard $(addprefix ./internal/,med audit envelope policy token fhir pki outbound siem children) ./coresdk))

.PHONY: help run test check tidy lint generated race vulns gen bench fuzz clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Start everything on this machine, with sample patients (ARGS="--data DIR ...")
	@scripts/need.sh postgres=postgresql
	@$(GO) build -trimpath -tags nomsgpack -o bin/medirecord ./cmd/medirecord
	@exec bin/medirecord dev $(ARGS)

test: ## Run every test
	@[ -n "$$MEDIRECORD_TEST_DATABASE_URL" ] || scripts/need.sh postgres=postgresql
	@$(GO) test -timeout 30m ./...

check: tidy lint generated race vulns ## Run everything CI runs before the tests

tidy: ## Check go.mod
	@$(GO) mod tidy -diff
	@$(GO) -C tools mod tidy -diff

lint: ## Check format and code
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	@$(GO) vet ./...
	@$(TOOL) golangci-lint run

generated: ## Check that generated code is what its sources make
	@scripts/need.sh protoc=protobuf-compiler
	@scripts/gen.sh --check

race: ## Run the crafts' tests with the race detector
	@$(GO) test -race -timeout 30m $(CRAFTS)

vulns: ## Look dependencies up in the Go vulnerability database
	@scripts/vulns.sh

gen: ## Generate code from proto/, SQL and the API's contract
	@scripts/need.sh protoc=protobuf-compiler
	@scripts/gen.sh

bench: ## Run the benchmark harness (ARGS="...")
	@scripts/need.sh postgres=postgresql wrk=wrk
	@$(GO) run ./bench $(ARGS)

fuzz: ## Run each fuzz target for FUZZTIME (30s)
	@scripts/fuzz.sh $(FUZZTIME)

clean: ## Remove what was built
	@rm -rf bin
