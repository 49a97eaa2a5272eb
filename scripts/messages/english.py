"""Texts with words in them that are not translated: nobody reads them as a message, or they are the same in every language."""

ENGLISH = frozenset({
    # commands, and what the help says
    "python {script} {file}",
    "--nnodes {machines} --master ADDRESS:PORT --rank 0 (1 to {machines2} on the others) ",
    "python -u -m paddle.distributed.launch {several}--gpus {devices} {script} {file}",
    "evaluate.py {task}",
    "python -m paddlealign.{command}",
    "{script} [ARGS.json] [--key value ...]",
    "Keys stand in the JSON file, on the command line, or both; the command line wins. See docs/arguments.md.",
    "-r {requirements} (for a GPU {name} beside it, see docs/gpu.md)",
    "    algorithm:\n      algorithm_type: dpo\n      kl_loss_fn_args:\n        kl_coef: 0.1",
    # what other libraries say, to be recognised
    "mapping values are not allowed",
    "single document",
    "control character",
    "property name",
    "single value",
    "No ccache found",
    "The value of the smallest subnormal",
    # code, and what is written for programs
    "\\A\\ufeff?---[ \\t]*\\r?\\n(.*?)^---[ \\t]*\\r?$",
    "import sys; sys.path[:] = sys.argv[2:]; from paddlealign.data.workers import serve; serve(int(sys.argv[1]))",
    "\n"
    "i=0\nwhile [ $i -lt 600 ] && grep -qs '^State:.[^ZX]' /proc/$1/status; do sleep 0.05; i=$((i + 1)); done\nprintf '\\n%s\\n' \"$2\"\n",
    "\n\nAssistant: ",
    "store of group {count}: {members}",
    "RewardModel | None",
    "{kind}; charset=utf-8",
    "paddlealign reference 2 {dtype} {weights} {tokens}",
    " ld_alpha {ld_alpha}",
    # names in run.json, data.json and incidents.jsonl
    "answers of other prompts",
    "bad numbers",
    "loss spike",
    "{name} labels",
    "{name} files",
    # a cell of a table, whose words are too few to be recognised elsewhere
    "{micro_batches} of {rows}",
    # rows of the sample data
    "How many legs does a spider have?",
    "I have 7 apples and get 5 more. How many do I have now?",
    # both languages
    "{variable} is {asked} in the environment; allowed: {languages}. Unset it to follow the locale. / 环境变量 {variable} 为 {asked}；"
    "可用值：{languages2}。不设置它则按区域设置决定。",
    # names
    "PaddleNLP 3.0.0b4",
    # a line of the log, whose columns have English names
    "{prefix?eval|step} {place}  {line}",
})  # fmt: skip
