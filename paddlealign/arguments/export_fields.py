"""The keys of export, for ``fields.SECTIONS``."""

from dataclasses import dataclass

from paddlealign.arguments.declare import key as _key
from paddlealign.arguments.declare import required as _required


@dataclass(frozen=True)
class TargetArguments:
    """What a model is written as (export)."""

    _argument_group_name = "target"

    output_dir: str = _required("Folder that the model is written to; it must not hold a model yet.", "DIR")
    format: str = _key(
        "Whose layout is written: HuggingFace's, which transformers and this project read, or the one of PaddleNLP 3.0.0b4.",
        "huggingface",
        choices=("huggingface", "paddlenlp"),
    )
    dtype: str = _key(
        "Number format of the written weights; auto: the one that config.json names, float32 where it names none.",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    max_shard_size: str = _key(
        "Weights above this size are written in several files: a number with KB, MB or GB (powers of 1000), or of bytes.",
        "5GB",
        metavar="SIZE",
    )
