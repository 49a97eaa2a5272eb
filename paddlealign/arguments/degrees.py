"""What the parallel keys mean for the processes that were started: which layout, what is refused, and what is told."""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from paddlealign.errors import UserError

# key -> its type. A whole number up to 1, false, and an empty text ask for nothing.
PARALLEL_KEYS: dict[str, type] = {
    "tensor_parallel_degree": int,
    "pipeline_parallel_degree": int,
    "data_parallel_degree": int,
    "virtual_pp_degree": int,
    "sharding_parallel_degree": int,
    "sep_parallel_degree": int,
    "context_parallel_degree": int,
    "expert_parallel_degree": int,
    "expert_tensor_parallel_degree": int,
    "sequence_parallel": bool,
    "sharding": str,
}
ROW_MULTIPLE = 8  # the lengths of rows are multiples of it: fewer shapes, aligned for kernels, and evenly cut
SHARDING_WORDS = ("stage1", "stage2", "stage3", "offload")


class Degrees(NamedTuple):
    """The layout of a run, by the names of the keys.

    How many processes share each layer, hold different layers, and read different rows; of the last, how many keep a part each of what
    all would keep alike, and of what ("", "stage1", "stage2", "stage3"); whether those that share a layer cut the rows between layers.
    """

    tensor_parallel_degree: int
    pipeline_parallel_degree: int
    data_parallel_degree: int
    sharding_parallel_degree: int = 1
    sharding: str = ""
    sequence_parallel: bool = False


def read_environment(environment: Mapping[str, str]) -> int:
    """How many processes paddle.distributed.launch started, 1 where there is no launcher."""
    count = environment.get("PADDLE_TRAINERS_NUM", "1")
    return int(count) if count.isdigit() else 1


def settle_degrees(asked: Mapping[str, Any], processes: int, sections: Container[str]) -> tuple[Degrees, list[str]]:
    """The degrees of this run, whose product is the number of processes, and the lines to tell the user about them.

    asked: parallel key -> value, already of the key's type, where the user set it. processes: see ``read_environment``. sections: the
    command's groups of keys; without "training" there are no steps, without "parallel" it runs in one process. Raises UserError where the
    run would not be what was asked.
    One process computes the same numbers as several would, so a degree is no reason to stop it: a rehearsal on one device is welcome.
    """
    for word in str(asked.get("sharding", "")).split():
        if word not in SHARDING_WORDS:
            raise UserError(f'sharding: "{asked["sharding"]}" is not allowed; allowed: {", ".join(SHARDING_WORDS)}, or "".')
    active = {key: value for key, value in asked.items() if (value > 1 if PARALLEL_KEYS[key] is int else bool(value))}
    if processes == 1:
        return Degrees(1, 1, 1), _told_in_one_process(active, "training" in sections)
    if "parallel" not in sections:
        raise UserError(
            f"Started with {processes} processes, but this command reads and writes a model once, which one process does. Start it with "
            "plain python, without paddle.distributed.launch; the parallel keys may stay in the file."
        )
    missing = [key for key in active if key not in Degrees._fields]
    if missing:
        off = ", ".join(f"{key} {_nothing(key)}" for key in missing)
        raise UserError(
            f"{_shown({key: active[key] for key in missing})}: not supported with several processes ({processes} were started). "
            f"Set {off}; {', '.join(Degrees._fields)} are supported."
        )
    degrees, notes = _several(asked, active, processes, "training" in sections)
    if "training" not in sections:
        idle = {key: value for key, value in active.items() if key not in Degrees._fields[:3]}
        return degrees, notes + ([f"{_shown(idle)}: for training; nothing to do here."] if idle else [])
    degrees, told = _with_sharding(degrees, active, asked.get("data_parallel_degree", -1))
    if active.get("sequence_parallel") and degrees.tensor_parallel_degree == 1:
        told.append("sequence_parallel: nothing to do with tensor_parallel_degree 1; it cuts what those that share a layer all hold.")
    elif active.get("sequence_parallel"):
        degrees = degrees._replace(sequence_parallel=True)
        if ROW_MULTIPLE % degrees.tensor_parallel_degree:
            possible = [degree for degree in range(2, ROW_MULTIPLE + 1) if ROW_MULTIPLE % degree == 0]
            raise UserError(
                f"sequence_parallel with tensor_parallel_degree {degrees.tensor_parallel_degree}: rows are multiples of {ROW_MULTIPLE} "
                f"tokens, which {degrees.tensor_parallel_degree} does not divide. Set tensor_parallel_degree to "
                f"{', '.join(map(str, possible))}, or sequence_parallel to false."
            )
    return degrees, notes + told


def _with_sharding(degrees: Degrees, active: Mapping[str, Any], counted: int) -> tuple[Degrees, list[str]]:
    """Who shards what: all processes that read different rows, or as many of them as the user said.

    counted: the user's data_parallel_degree; below that of ``degrees`` it counts as PaddleNLP does, without the shards.
    """
    words, given = str(active.get("sharding", "")).split(), active.get("sharding_parallel_degree")
    if "offload" in words:
        raise UserError(f'sharding: "{active["sharding"]}": offload is not supported. Take the word away; stage3 holds least.')
    if len(words) > 1:
        raise UserError(f'sharding: "{active["sharding"]}" names several stages. Keep one; each does what those before it do, too.')
    if not words:
        if given:
            raise UserError(f"sharding_parallel_degree {given} without sharding. Set sharding to stage1, stage2 or stage3 as well.")
        return degrees, []
    readers = degrees.data_parallel_degree
    if readers % (given or readers):
        raise UserError(
            f"sharding_parallel_degree {given} does not divide the {readers} processes that read different rows (data_parallel_degree). "
            f"Set a divisor, or leave it unset for {readers}."
        )
    if not given and 0 < counted < readers:
        given = readers // counted
    if readers == 1:
        return degrees, [f"sharding {words[0]}: nothing to do, since one process alone reads rows (data_parallel_degree 1)."]
    return degrees._replace(sharding=words[0], sharding_parallel_degree=given or readers), []


def _several(asked: Mapping[str, Any], active: Mapping[str, Any], processes: int, trains: bool) -> tuple[Degrees, list[str]]:
    """data_parallel_degree is what the other two leave of the processes; where the user set it, all three must fit.

    As PaddleNLP counts, it may also be what sharding_parallel_degree leaves of these.
    """
    tensor, pipeline = active.get("tensor_parallel_degree", 1), active.get("pipeline_parallel_degree", 1)
    product = f"tensor_parallel_degree {tensor} x pipeline_parallel_degree {pipeline}"
    if processes % (tensor * pipeline):
        raise UserError(
            f"{product} = {tensor * pipeline} does not divide the {processes} processes started. Start a multiple of {tensor * pipeline} "
            "processes (--nproc_per_node, or --gpus), or set other degrees."
        )
    data = processes // (tensor * pipeline)
    given = asked.get("data_parallel_degree", -1)
    beside = (
        active.get("sharding_parallel_degree", data // given if given > 0 and data % given == 0 else 1) if active.get("sharding") else 1
    )
    if given > 0 and data not in (given, given * beside):
        raise UserError(
            f"{product} x data_parallel_degree {given} = {tensor * pipeline * given} is not the {processes} processes started. "
            f"Set data_parallel_degree {data}, or leave it unset, or start {tensor * pipeline * given} processes."
        )
    degrees = Degrees(tensor, pipeline, data)
    if active:
        return degrees, []
    note = f"{processes} processes and no parallel degree set: data_parallel_degree {processes}. Each process reads its own rows"
    more = f", so a step takes {processes} times as many as one process takes with these arguments" if trains else ""
    return degrees, [f"{note}{more}."]


def _told_in_one_process(active: Mapping[str, Any], trains: bool) -> list[str]:
    if not active:
        return []
    notes = [f"{_shown(active)}: for several processes; this one process computes the same numbers without."]
    if not trains:
        return notes
    copies = max(active.get("sharding_parallel_degree", 1), active.get("data_parallel_degree", 1))
    if copies > 1:
        notes.append(
            f"With {copies} devices reading different rows a step would take {copies} times as many; for the same step here multiply "
            f"gradient_accumulation_steps by {copies}."
        )
    elif "sharding" in active:
        notes.append("Devices under sharding read different rows: there a step takes more rows than here; see gradient_accumulation_steps.")
    return notes


def _shown(active: Mapping[str, Any]) -> str:
    return ", ".join(key if PARALLEL_KEYS[key] is bool else f"{key} {value}" for key, value in active.items())


def _nothing(key: str) -> str:
    return {int: "1", bool: "false", str: '""'}[PARALLEL_KEYS[key]]
