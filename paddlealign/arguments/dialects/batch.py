"""A batch that another tool counts over all processes, as ours: rows of a micro-batch on one process, times micro-batches."""

from paddlealign.arguments.dialects.reading import Reading

MICRO, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"


def readers(reading: Reading) -> int:
    """The processes that read different rows: those that are started, without those that share a model."""
    shared = 1
    for key in ("tensor_parallel_degree", "pipeline_parallel_degree"):
        taken = reading.keys[key].value if key in reading.keys else 1
        shared *= reading.setting.whole(key) or (taken if isinstance(taken, int) and taken > 0 else 1)
    return max(1, reading.started // shared)


def take_batch(reading: Reading, theirs: str, rows: int, micro: int | None = None, steps: int | None = None, steps_key: str = "") -> None:
    """Set micro-batch and accumulation so that a step takes ``rows`` rows over all processes.

    micro, steps: what the configuration says about one of the two. steps_key: the key that says steps. What the command line gives wins;
    the other one follows from it.
    """
    given_micro, given_steps = reading.setting.whole(MICRO), reading.setting.whole(STEPS)
    if given_micro and given_steps:
        reading.ignore(theirs, f"--{MICRO} and --{STEPS} take its place")
        return
    count = readers(reading)
    if given_micro:
        micro, steps = given_micro, None
    elif given_steps:
        micro, steps = None, given_steps
    part, name = (steps, STEPS) if steps else (micro or 1, MICRO)
    if rows < 1 or rows % (count * part):
        who = f"{count} process{'es' if count > 1 else ''} with {name} {part} need a multiple of {count * part}"
        reading.refuse(theirs, f"is the batch over all processes, and {who}. Start another number of processes, or set --{MICRO}.")
        return
    other = rows // (count * part)
    micro, steps = (other, part) if steps else (part, other)
    remark = f"{rows} rows a step over all processes = {micro} x {steps} micro-batches x {count} reading rows"
    reading.take(theirs, MICRO, micro, remark)
    reading.take(steps_key or theirs, STEPS, steps, "" if steps_key in reading.entries else remark)
