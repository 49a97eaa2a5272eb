#!/usr/bin/env bash
# Writes requirements.txt, requirements-gpu.txt and requirements-dev.txt from the .in files.
#
#   bash scripts/pin.sh             keeps the pins that still fit
#   bash scripts/pin.sh --upgrade   takes the newest versions that fit
#
# One file serves Python 3.10, 3.11 and 3.12: lines that differ carry a marker. Needs uv (`python -m pip install uv`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(command -v uv || true)
if [[ -z "$uv" && -x .venv/bin/uv ]]; then uv=.venv/bin/uv; fi
if [[ -z "$uv" ]]; then
  echo "scripts/pin.sh: uv is not installed. Fix: .venv/bin/python -m pip install uv" >&2
  exit 1
fi

# compile IN OUT [more options]: resolve IN and write the exact tree to OUT, without a word about where it was found.
compile() {
  local from=$1 to=$2
  shift 2
  "$uv" pip compile "$from" --output-file "$to" --universal --python-version 3.10 --no-python-downloads \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet "$@"
  # pyproject.toml limits the resolution to Linux, x86_64 and Python below 3.13. On the lines that would make pip skip
  # a package elsewhere without a word, so it is taken off again: only what tells 3.10, 3.11 and 3.12 apart stays.
  local given="(python_full_version < '3.13'|platform_machine == 'x86_64'|sys_platform == 'linux')"
  sed -i -E -e "s/ and $given//g" -e "s/ ; $given and / ; /" -e "s/ ; $given$//" "$to"
  sed -i "1i # Made by scripts/pin.sh from $from: change that file, then run the script." "$to"
}

compile requirements.in requirements.txt --constraint constraints.in "$@"
compile requirements-dev.in requirements-dev.txt --constraint requirements.txt "$@"

# The GPU wheel lies in Paddle's own index only, in one flavour for each CUDA, so its tree cannot be resolved here. It is the
# same tree with one line changed; the CUDA libraries that the wheel brings depend on the flavour and are left to it.
sed -e "s/^paddlepaddle==/paddlepaddle-gpu==/" -e "1s/.*/# Made by scripts\/pin.sh from requirements.txt: the same tree with the GPU wheel./" requirements.txt > requirements-gpu.txt
echo "pinned: $(grep -c == requirements.txt) lines in requirements.txt, $(grep -c == requirements-dev.txt) in requirements-dev.txt"
