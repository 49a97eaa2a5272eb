#!/usr/bin/env bash
# From a bare machine to a better model: environment, SFT, a reward model, DPO, answers before and after, and who judges them better.
#
#   bash scripts/quickstart.sh          run what is not done yet
#   bash scripts/quickstart.sh --fresh  forget earlier results first
#
# Everything it makes lies in output/quickstart/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=output/quickstart
case "${1:-}" in
  "") ;;
  --fresh) rm -rf "$out" ;;
  *)
    echo "scripts/quickstart.sh: unknown argument $1. Allowed: --fresh" >&2
    exit 1
    ;;
esac

bash scripts/setup.sh requirements.txt
python=.venv/bin/python
SECONDS=0
mkdir -p "$out"

# A training run is done when its run.json says so and its argument file was not changed since.
is_finished() {
  [[ -f "$out/$1/run.json" && ! "scripts/llama/quickstart_$1.json" -nt "$out/$1/run.json" ]] &&
    "$python" -c 'import json, sys; sys.exit(not json.load(open(sys.argv[1])).get("finished"))' "$out/$1/run.json"
}
is_predicted() { [[ -f "$out/$1_heldout.json" && $(wc -l <"$out/$1_heldout.json") -eq $(wc -l <data/heldout.json) ]]; }

# train NAME TITLE: run NAME_main.py on its argument file. A run that was broken off starts anew.
train() {
  if is_finished "$1"; then
    echo "$2: finished before, reused ($out/$1)"
    return
  fi
  echo "$2: ${1}_main.py scripts/llama/quickstart_$1.json"
  rm -rf "${out:?}/$1" "$out/$1_heldout.json"* "$out/judged.jsonl"
  [[ "$1" != sft ]] || rm -rf "$out/reward" "$out/dpo" "$out/dpo_heldout.json"* # made from an earlier SFT model
  "$python" "${1}_main.py" "scripts/llama/quickstart_$1.json"
}

# answer NAME TITLE: let the model of a run answer the held-out prompts.
answer() {
  if is_predicted "$1"; then
    echo "$2: answered before, reused ($out/$1_heldout.json)"
    return
  fi
  echo "$2: predict.py scripts/llama/quickstart_$1_predict.json"
  "$python" predict.py "scripts/llama/quickstart_$1_predict.json"
}

# The reward model compares the answers after DPO with those after SFT.
compare() {
  if [[ -f "$out/judged.jsonl" && "$out/judged.jsonl" -nt "$out/dpo_heldout.json" && "$out/judged.jsonl" -nt "$out/sft_heldout.json" ]]; then
    echo "$1: judged before, reused ($out/judged.jsonl)"
    return
  fi
  echo "$1: evaluate.py judge scripts/llama/quickstart_judge.json"
  rm -f "$out/judged.jsonl"
  "$python" evaluate.py judge scripts/llama/quickstart_judge.json
}

train sft "1/6 SFT"
answer sft "2/6 answers after SFT"
train reward "3/6 reward model"
train dpo "4/6 DPO"
answer dpo "5/6 answers after DPO"
compare "6/6 the reward model judges"
"$python" -m scripts.sample.show --folder "$out" --seconds "$SECONDS"
