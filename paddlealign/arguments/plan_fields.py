"""The keys of ``python -m paddlealign.plan`` beside those of the planned run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Optional

from paddlealign.arguments.declare import key as _key
from paddlealign.arguments.declare import required as _required


@dataclass(frozen=True)
class PlanFields:
    """What the devices are, and what is asked of them (plan)."""

    _argument_group_name = "plan"

    devices: int = _required(
        "How many devices to plan for. The planned command's own keys stand in its file, or on the command line beside these.", "N"
    )
    device_memory_gib: float = _key("Memory of one device, in GiB.", 80.0, metavar="GIB")
    reserve_gib: float = _key(
        "What a layout must leave free of it, in GiB: for CUDA, NCCL's buffers, and memory that the allocator cannot use.",
        8.0,
        metavar="GIB",
    )
    devices_per_node: int = _key("Devices of one machine.", 8, metavar="N")
    device_tflops: float = _key(
        "What one device computes at most in the training's number format, 1e12 operations a second; 312 is an A100's bfloat16.",
        312.0,
        metavar="NUMBER",
    )
    achieved_share: float = _key("Which share of that the matmuls and attention reach.", 0.4, metavar="SHARE")
    intra_node_gbs: float = _key("What one device sends to others of its machine, 1e9 bytes a second.", 200.0, metavar="NUMBER")
    inter_node_gbs: float = _key("What one device sends to other machines, 1e9 bytes a second.", 20.0, metavar="NUMBER")
    method: str = _key(
        "What the run is: auto takes dpo or reward where a key of that objective is set.", "auto", choices=("auto", "sft", "reward", "dpo")
    )
    rows_per_step: Optional[int] = _key(
        "Dataset rows of an optimizer step; unset: per_device_train_batch_size x gradient_accumulation_steps x data_parallel_degree.",
        None,
        metavar="ROWS",
    )
    tokens_per_row: Optional[int] = _key(
        "Mean tokens of a row, prompt and all responses, for the time of a step; unset: the longest that max_length allows. Memory is "
        "counted for the longest in any case.",
        None,
        metavar="TOKENS",
    )
    scored_share: float = _key(
        "Which share of a row's tokens are responses and meet the head, for the time of a step.", 1.0, metavar="SHARE"
    )
    search: bool = _key("Look for the best layouts though the arguments set one; without one they are looked for anyway.", False)
    json: Optional[str] = _key("File that the plans are written to as JSON.", None, metavar="FILE")


def plan_problems(plan: PlanFields) -> list[str]:
    """A layout must have some memory."""
    if plan.reserve_gib < plan.device_memory_gib:
        return []
    return [f"reserve_gib {plan.reserve_gib:g} leaves nothing of device_memory_gib {plan.device_memory_gib:g}."]


@dataclass(frozen=True)
class PlanArguments:
    """The plan's own keys; see ``results.SftArguments``. ``plan.Planned`` has those of the planned run beside them."""

    plan: PlanFields
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    file: str | None
    command: Literal["plan"] = "plan"
