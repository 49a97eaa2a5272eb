#!/usr/bin/env bash
# Sets up the environment with the test tools and runs every check: ruff, mypy, pytest. Arguments go to pytest.
#
#   bash scripts/test.sh                        everything
#   bash scripts/test.sh tests/unit -k order    some of the tests
#
# Test files are shared out to one process per core, four at most, in the order of tests/conftest.py: left to itself, xdist begins with the files
# of many tests, and so ends with the quickstart, minutes long, while the other processes have nothing to do. Within a file the order is the file's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh requirements.txt requirements-dev.txt
python=.venv/bin/python
failed=()

# The tests of the run's page look at it in a browser.
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  echo "environment: installing Debian's chromium and its driver for the tests of the run's page (110 MB)"
  as_root=()
  [[ $(id -u) -eq 0 ]] || as_root=(sudo -n)
  install=("${as_root[@]}" apt-get install -y --no-install-recommends chromium chromium-driver)
  { "${install[@]}" || { "${as_root[@]}" apt-get update && "${install[@]}"; }; } >.venv/chromium.log 2>&1 ||
    echo "environment: that failed (.venv/chromium.log), so these tests will. Fix: sudo apt-get install chromium chromium-driver" >&2
fi

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

# Each command that a test starts would compile the package anew where PYTHONDONTWRITEBYTECODE is set: a fifth of its start.
"$python" -m compileall -q paddlealign scripts ./*.py || true

# pytest is last, and so is its summary line.
"$python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@" || failed+=(pytest)
[[ ${#failed[@]} -eq 0 ]]
