#!/usr/bin/env bash
# Sets up the environment with the test tools and runs every check: ruff, mypy, pytest. Arguments go to pytest.
#
#   bash scripts/test.sh                        everything
#   bash scripts/test.sh tests/unit -k order    some of the tests
#
# Test files are shared out to one process per core, four at most; within a file the order is the file's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh requirements.txt requirements-dev.txt
python=.venv/bin/python
failed=()

# check NAME COMMAND...: run it and remember a failure, so that one run tells of all of them.
check() {
  local name=$1
  shift
  if "$@"; then echo "$name: passed"; else failed+=("$name"); fi
}

check "ruff check" "$python" -m ruff check --quiet .
check "ruff format" "$python" -m ruff format --check --quiet .
check "mypy" "$python" -m mypy --no-error-summary paddlealign
if [[ ${#failed[@]} -gt 0 ]]; then printf 'FAILED: %s\n' "${failed[@]}"; fi

# pytest is last, and so is its summary line.
"$python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile "$@" || failed+=(pytest)
[[ ${#failed[@]} -eq 0 ]]
