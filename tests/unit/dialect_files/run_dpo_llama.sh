#!/bin/bash
# In the manner of the DPO code in DeepSpeed-Chat's style; the paths are ours.
export CUDA_VISIBLE_DEVICES=0,1
ACTOR_MODEL_PATH=models/sft
ZERO_STAGE=3
OUTPUT=$1
if [ "$OUTPUT" == "" ]; then
    OUTPUT=./output_dpo
fi
if [ "$ZERO_STAGE" == "" ]; then
    ZERO_STAGE=0
fi
mkdir -p $OUTPUT

Actor_Lr=5e-6
deepspeed --master_port 12345 main.py \
   --data_path HelpfulRLHFDataset HarmlessRLHFDataset \
   --local_data_files data/helpful-base data/harmless-base/ \
   --data_split 0,0,1 0,0,1 \
   --data_output_path ./data_files \
   --actor_model_name_or_path $ACTOR_MODEL_PATH \
   --num_padding_at_beginning 1 \
   --per_device_train_batch_size 2 \
   --log_interval 100 \
   --per_device_eval_batch_size 2 \
   --generation_batch_numbers 1 \
   --max_answer_seq_len 512 \
   --max_prompt_seq_len 256 \
   --actor_learning_rate ${Actor_Lr} \
   --actor_weight_decay 0.1 \
   --critic_weight_decay 0.1 \
   --actor_gradient_checkpointing \
   --beta 0.3 \
   --num_train_epochs 1 \
   --lr_scheduler_type linear \
   --gradient_accumulation_steps 8 \
   --num_warmup_steps 100 \
   --unsup_coef 27.8 \
   --deepspeed --seed 1234 \
   --actor_zero_stage $ZERO_STAGE \
   --offload_reference_model \
   --output_dir $OUTPUT \
   2>&1 | tee $OUTPUT/training.log
