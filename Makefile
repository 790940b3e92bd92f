# What one types all day. `make fast` before each commit, `make test` before each push.
.PHONY: fast test long lint docs demo

fast:  ## lint and the fast tests: 2 minutes
	ruff check .
	pytest -q -m "not slow"

test: lint  ## all tests that CI runs
	pytest

long: lint  ## the long tier too: random kills, long interpreter runs, coverage of the intervals
	CI_FULL=1 pytest

lint:
	ruff check .
	pyright

docs:  ## every command of the README, docs/ and sweeps/ composes
	pytest -q -n0 tests/test_docs.py

demo:  ## a sweep on the synthetic model: one minute, no language model
	python train.py -m model=synthetic arch=jumprelu,gated,topk sparsity=8,16 name=demo logger=csv
