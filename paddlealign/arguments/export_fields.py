"""The keys of export, for ``fields.SECTIONS``."""

import re
from dataclasses import dataclass

from paddlealign.arguments.declare import key as _key
from paddlealign.arguments.declare import required as _required
from paddlealign.arguments.values import show


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


def shard_bytes(text: str) -> int:
    """A size such as 5GB, 500 MB or 1000000 in bytes; ValueError where it is none. Units are powers of 1000, as HuggingFace's."""
    match = re.fullmatch(r"0*([1-9]\d*)\s*(KB|MB|GB|)", text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise ValueError(f"{show(text)} is not allowed; allowed: a number with KB, MB or GB, such as 5GB, or of bytes.")
    return int(match[1]) * 1000 ** ("", "KB", "MB", "GB").index(match[2].upper())


def target_problems(target: TargetArguments) -> list[str]:
    """The size of a shard must be one."""
    try:
        shard_bytes(target.max_shard_size)
    except ValueError as error:
        return [f"max_shard_size: {error}"]
    return []
