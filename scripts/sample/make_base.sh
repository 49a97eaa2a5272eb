#!/usr/bin/env bash
# Trains the base checkpoint data/base_model from nothing but the committed scripts: data, tokenizer, random weights, pretraining.
#
#   bash scripts/sample/make_base.sh
#
# About half an hour on 2 cores. The corpus lies in output/base/ and is not kept in git.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bash scripts/setup.sh requirements.txt
python=.venv/bin/python
work=output/base

rm -rf "$work"
mkdir -p "$work/random"
"$python" -m scripts.sample.make_data --output data
"$python" -m scripts.sample.make_tokenizer --output "$work/random"
"$python" -m scripts.sample.make_model --output "$work/random"

# pretrain FROM TO CORPUS EPOCHS RATE SEED: train on a stretch of the corpus.
pretrain() {
  "$python" sft_main.py --model_name_or_path "$work/$1" --train_dataset_path "$work/$3" --output_dir "$work/$2" --do_train true \
    --num_train_epochs "$4" --learning_rate "$5" --seed "$6" --greedy_zero_padding true --chat_template none --src_length 128 --max_length 256 \
    --per_device_train_batch_size 8 --lr_scheduler_type cosine --warmup_steps 50 --weight_decay 0.01 --adam_beta2 0.98 \
    --logging_steps 20 --save_strategy no
}
"$python" -m scripts.sample.corpus --output "$work/corpus.json" --texts 40000 --seed 7
"$python" -m scripts.sample.corpus --output "$work/corpus2.json" --texts 30000 --seed 8
pretrain random trained corpus.json 2 2e-3 7
pretrain trained trained2 corpus2.json 1 1e-3 8

# The trained weights, rounded to bfloat16, beside the files that a hub's checkpoint has.
"$python" -m scripts.sample.make_model --output "$work/random" --weights "$work/trained2/model.safetensors"
mkdir -p data/base_model
for file in config.json generation_config.json model.safetensors tokenizer.model tokenizer_config.json special_tokens_map.json; do
  cp "$work/random/$file" "data/base_model/$file"
done
ls -l data/base_model
