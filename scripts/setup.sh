#!/usr/bin/env bash
# Makes .venv and installs requirement files of this repository into it. A second run finds its stamp and does nothing.
#
#   bash scripts/setup.sh requirements.txt [requirements-dev.txt ...]
#
# PYTHON=/path/to/python chooses the interpreter that .venv is made with (3.10, 3.11 or 3.12).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/installed.sha256
log=$venv/install.log

fail() {
  printf 'scripts/setup.sh: %s\n' "$@" >&2
  exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

is_supported() {
  "$1" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

# The interpreter to make .venv with. python3 may be a shim that starts nothing, so each candidate is tried.
find_python() {
  if [[ -n "${PYTHON:-}" ]]; then
    is_supported "$PYTHON" || fail "PYTHON=$PYTHON is $(version_of "$PYTHON" || echo 'not a Python that starts')." \
      "Python 3.10, 3.11 or 3.12 is needed. Fix: point PYTHON at one, or unset it."
    echo "$PYTHON"
    return
  fi
  local candidate
  for candidate in python3 python3.12 python3.11 python3.10; do
    if is_supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 found (python3 is $(version_of python3 || echo missing))." \
    "Fix: install one, or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh $*"
}

make_venv() {
  local python
  python=$(find_python "$@")
  echo "environment: making $venv with Python $(version_of "$python")"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    local short
    short=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "Python $short has no venv module: Debian and Ubuntu keep it in a package of its own." \
      "Fix: sudo apt-get install python$short-venv   (or PYTHON=/path/to/another/python bash scripts/setup.sh $*)"
  fi
  "$python" -m venv --clear "$venv" || fail "Python could not make $venv; its message is above."
}

# One line for each file: its sha256 and its name. The stamp holds these lines for what is installed.
sums_of() { "$venv/bin/python" -c '
import hashlib, sys
for name in sys.argv[1:]:
    print(hashlib.sha256(open(name, "rb").read()).hexdigest(), name)' "$@"; }

is_installed() {
  [[ -f "$stamp" ]] || return 1
  local line
  while read -r line; do
    grep -qxF -- "$line" "$stamp" || return 1
  done < <(sums_of "$@")
}

install_files() {
  local options=() file
  for file in "$@"; do options+=(-r "$file"); done
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$venv/bin/python" "${options[@]}" >"$log" 2>&1 && return
    echo "environment: uv could not install them (it does not read pip's settings), so pip does"
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${options[@]}" >"$log" 2>&1 && return
  tail -n 20 "$log" >&2
  fail "pip could not install $*; its last lines are above, all of them in $log." \
    "Fix: mend what they name (most often the network or the disk), then run this again."
}

[[ $# -gt 0 ]] || set -- requirements.txt
for file in "$@"; do
  [[ -f "$file" ]] || fail "$file does not exist in $PWD."
done
if command -v flock >/dev/null; then # two runs at once would install over each other
  exec 9>"$venv.lock"
  flock 9
fi

is_supported "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null || make_venv "$@"

# Both wheels own the package `paddle`: one installed over the other breaks it. The two files differ in this wheel only.
if compgen -G "$venv/lib/python3*/site-packages/paddlepaddle_gpu-*.dist-info" >/dev/null; then
  set -- "${@/#requirements.txt/requirements-gpu.txt}"
elif [[ " $* " == *" requirements-gpu.txt "* ]] && compgen -G "$venv/lib/python3*/site-packages/paddlepaddle-*.dist-info" >/dev/null; then
  fail "$venv holds Paddle for CPU, and Paddle for GPU cannot be installed over it." "Fix: rm -rf $venv, then run this again."
fi

if is_installed "$@"; then
  echo "environment: $venv is up to date"
  exit 0
fi
echo "environment: installing $* into $venv (1.8 GB; the first time takes one to five minutes)"
others=$(mktemp)
trap 'rm -f "$others"' EXIT
for file in "$@"; do # what the stamp says of the other files stays true
  if [[ -f "$stamp" ]]; then
    grep -v -- " $file\$" "$stamp" >"$others" || true
    cp "$others" "$stamp"
  fi
done
install_files "$@"
sums_of "$@" >>"$stamp"
echo "environment: $venv is ready"
