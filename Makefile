# SPDX-License-Identifier: Apache-2.0
# Every target sets up what it needs first, on a fresh machine too; see env/setup.sh.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=

.PHONY: help demo rehearsal test check env docs params

help: ## Show this list
	@echo "make TARGET [ARGS=\"...\"]"
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1|\2/p' Makefile | column -t -s '|'
	@echo
	@echo "  make demo ARGS=\"--command 'segment the blue box' --seed 3\""
	@echo "  make test ARGS=\"-k parity\""
	@echo "  source \"\$$(make -s env)\"     then: clip-seg --help"

demo: ## See the robot's camera find the red cup (ARGS go to clip-seg demo)
	@setup="$$(env/setup.sh)" && source "$$setup" && exec clip-seg demo $(ARGS)

rehearsal: ## Try out the download and the service of full-size weights, offline (ARGS go to clip-seg rehearse)
	@setup="$$(env/setup.sh)" && source "$$setup" && exec clip-seg rehearse $(ARGS)

# "--golden DIR" becomes "--golden=DIR", because pytest takes DIR for a folder of tests until it has read the tests' own
# options.
test: ## Run the tests (ARGS go to pytest)
	@setup="$$(env/setup.sh)" && source "$$setup" && exec env/run_tests.sh $(subst --golden ,--golden=,$(ARGS))

check: ## Check format, rules and types of the code (ARGS=--fix mends what can be mended)
	@env/check.sh $(ARGS)

env: ## Print the file to source to work in the built environment
	@env/setup.sh

docs: ## Build the documentation as a site in site/ (ARGS go to mkdocs build)
	@env/docs.sh $(ARGS)

params: ## Write the parameter files and tables of the nodes from clip_seg_ros/config.py
	@setup="$$(env/setup.sh)" && source "$$setup" && exec python docs/tools/write_parameters.py
