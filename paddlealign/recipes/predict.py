"""predict.py: read rows, generate a completion for each, write them in the input's order; or chat in the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from paddlealign.arguments.decoding import split_stop_strings, text_keys
from paddlealign.arguments.fields import GenerationArguments
from paddlealign.arguments.results import PredictArguments
from paddlealign.arguments.row_fields import PromptRowArguments
from paddlealign.data.encoding import encode_prompt
from paddlealign.data.example import Record
from paddlealign.data.records import read_rows
from paddlealign.data.refusals import RefusedRow, describe_refusals
from paddlealign.data.sources import data_hash
from paddlealign.data.template import Template, load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.generation import generate
from paddlealign.models.incremental import Forward, forward_whole
from paddlealign.models.sampling import GenerationSettings
from paddlealign.models.weights import find_weights, plan_loading
from paddlealign.parallel.collect import gather_values
from paddlealign.parallel.topology import Topology
from paddlealign.recipes.adapter import adapter_hash, load_adapted, load_tokenizer, read_adapter
from paddlealign.recipes.chat import chat, prompt_limit
from paddlealign.recipes.device import choose_device, choose_dtype, introduce, say, show
from paddlealign.recipes.heads import need_language_head
from paddlealign.recipes.prediction_file import OUTPUT_KEY, append_outputs, prepare_output
from paddlealign.recipes.processes import agree_on, check_cut, staged_forward, start_processes
from paddlealign.recipes.reading import keep_refusals, reading_of, refused_path
from paddlealign.recipes.scoring import refuse_taken
from paddlealign.recipes.stop_strings import cut_at_stop, special_stop_ids, stop_finder
from paddlealign.saying import shows_bars

# Rows are sorted by length among this many batches, and written after them.
WINDOW_BATCHES = 8


@dataclass(frozen=True)
class PromptRow:
    """A row of the data file, as it stood there and as the tokens that the model answers.

    cut: whether their start was cut off. source: "file:line".
    """

    row: dict[str, Any]
    prompt: list[int]
    cut: bool
    source: str


def run(arguments: PredictArguments) -> None:
    """Predict as the arguments say."""
    introduce(arguments)
    generation, folder = arguments.generation, arguments.model.model_name_or_path
    device = choose_device(generation.device)
    config = read_config(folder)
    need_language_head(config, "model_name_or_path")
    check_cut(config, arguments.parallel)
    lora_path = arguments.adapter.lora_path
    plan_loading(config, folder, arguments.model.allow_pickle, config)  # a missing or damaged file is told before the rows are read
    dtype = choose_dtype(generation.dtype, config, device)
    topology, chain = start_processes(arguments.parallel)
    tokenizer = load_tokenizer(arguments.model, lora_path)
    template = load_template(tokenizer, generation.chat_template)
    settings = generation_settings(generation, tokenizer, template)
    if lora_path:
        read_adapter(lora_path, folder, config)

    def load() -> Decoder:
        return load_adapted(folder, config, dtype, arguments.model.allow_pickle, lora_path, topology)

    if generation.interactive:
        if generation.check:
            load()
            show("check: the model and its tokenizer are whole; ready to chat")
        else:
            chat(load(), tokenizer, template, settings, generation.src_length)
        return
    refuse_same_file(generation)
    rows, refused = read_prompts(generation, arguments.rows, tokenizer, template, config)
    told = {"rows": data_hash([Path(str(generation.data_file))]), "tokenizer": tokenizer.fingerprint, "template": template.fingerprint}
    agree_on(arguments, topology, {**told, "dtype of the weights": dtype} | ({"adapter": adapter_hash(lora_path)} if lora_path else {}))
    if generation.check:
        load()
        show(f"check: the model is whole. The first prompt:\n{tokenizer.decode(rows[0].prompt, skip_special=False)}")
        return
    output_file = Path(generation.output_file)
    done = 0
    if topology.is_main:
        keep_refusals(refused_path(generation.output_file), refused)
        done = prepare_output(output_file, [row.row for row in rows], output_settings(arguments, dtype, tokenizer, template))
    done = gather_values(topology.everyone, done)[0]
    if done:
        say(f"{output_file} holds {done} of {len(rows)} rows already" + ("; going on from there" if done < len(rows) else ""))
    if done < len(rows):
        alone = topology.world == topology.data.size  # each process holds the whole model
        forward = forward_whole if alone else staged_forward(chain, dtype)
        predict_rows(generation, load(), rows, done, settings, tokenizer, topology, forward)
    say(f"done: {len(rows)} rows in {output_file}")


def refuse_same_file(generation: GenerationArguments) -> None:
    """Raise UserError where the output would be written into the data file, under whatever name."""
    output_file = Path(generation.output_file)
    if output_file.exists() and output_file.samefile(str(generation.data_file)):
        raise UserError(f"data_file and output_file are the same file, {output_file}. Set another output_file.")


def generation_settings(generation: GenerationArguments, tokenizer: Tokenizer, template: Template) -> GenerationSettings:
    """What the arguments mean to models.generation."""
    stop_strings = split_stop_strings(generation.stop_strings)
    contrastive = generation.decode_strategy == "contrastive_search"
    return GenerationSettings(
        max_new_tokens=generation.max_length,
        min_new_tokens=generation.min_length,
        stop_ids=tuple(dict.fromkeys([*template.stop_ids, *special_stop_ids(stop_strings, tokenizer)])),
        holds_stop=stop_finder(stop_strings, tokenizer),
        num_return_sequences=generation.num_return_sequences,
        repetition_penalty=generation.repetition_penalty,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        do_sample=generation.decode_strategy == "sampling",
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        seed=generation.seed,
        num_beams=generation.num_beams,
        num_beam_groups=generation.num_beam_groups,
        diversity_rate=generation.diversity_rate,
        length_penalty=generation.length_penalty,
        early_stopping=generation.early_stopping,
        penalty_alpha=generation.penalty_alpha if contrastive else 0.0,
    )


def read_prompts(
    generation: GenerationArguments,
    asked: PromptRowArguments,
    tokenizer: Tokenizer,
    template: Template,
    config: DecoderConfig,
    written: Sequence[str] = (OUTPUT_KEY,),
) -> tuple[list[PromptRow], list[RefusedRow]]:
    """Read and encode the rows of data_file, and say what was read. Returns them, and those that were skipped.

    Raises UserError for a row that the model cannot answer, unless on_bad_row is skip. written: the keys that will be added to a row, which
    must be free.
    """
    pairs, report = read_rows([Path(str(generation.data_file))], "prompt", reading_of(asked), asked.on_bad_row)
    for warning in report.warnings:
        say(f"note: {warning}")
    for row, record in pairs:
        refuse_taken(row, written, record.source)
    rows: list[PromptRow] = []
    refused = list(report.skipped)
    for row, record in pairs:
        try:
            rows.append(prompt_row(row, record, generation, tokenizer, template, config))
        except UserError as error:
            if asked.on_bad_row == "error":
                raise
            refused.append(RefusedRow(record.source, str(error).removeprefix(f"{record.source}: "), json.dumps(row, ensure_ascii=False)))
    for line in describe_refusals(str(generation.data_file), refused):
        say(line)
    if not rows:
        raise UserError(f"{generation.data_file}: no row is left that the model can answer; all {len(refused):,} were skipped.")
    check_ids(rows, config)
    lengths = np.array([len(row.prompt) for row in rows])
    say(f"{generation.data_file}: {len(rows)} rows, prompts of {lengths.min()} to {lengths.max()} tokens, {lengths.sum():,} in all")
    cut = sum(row.cut for row in rows)
    if cut:
        say(f"note: {cut} of {len(rows)} prompts were longer than src_length {generation.src_length} and were cut at their start")
    short = int((lengths + generation.max_length > config.max_positions).sum())
    if short:
        say(f"note: {short} rows may end before {generation.max_length} new tokens: the model has {config.max_positions} positions")
    return rows, refused


def check_ids(rows: Sequence[PromptRow], config: DecoderConfig) -> None:
    """Raise UserError where a prompt has a token that the model does not have."""
    for row in rows:
        if max(row.prompt) >= config.vocab_size:
            raise UserError(
                f"{row.source}: the tokenizer gives the id {max(row.prompt)}, but the model's vocabulary has {config.vocab_size} ids. "
                "The tokenizer is not this model's; set tokenizer_name_or_path."
            )


def prompt_row(
    row: dict[str, Any], record: Record, generation: GenerationArguments, tokenizer: Tokenizer, template: Template, config: DecoderConfig
) -> PromptRow:
    """One row with its prompt in tokens, checked against the model."""
    src_length, positions = generation.src_length, config.max_positions
    prompt = encode_prompt(record, tokenizer, template, src_length)
    if prompt.cut and record.tools:
        whole = len(encode_prompt(record, tokenizer, template).ids)
        mend = f"Set src_length to {whole} or more" if whole < positions else "Shorten the row"
        raise UserError(
            f"{record.source}: the prompt has {whole} tokens and src_length is {src_length}; cut at its start it would lose its tools. "
            f"{mend} (the model's positions allow {positions - 1} at most)."
        )
    ids = [int(index) for index in prompt.ids]
    if not ids:
        raise UserError(f"{record.source}: the prompt is empty; there is nothing to answer.")
    if len(ids) >= positions:
        most = prompt_limit(src_length, generation.max_length, positions)
        raise UserError(
            f"{record.source}: the prompt has {len(ids)} tokens and the model {positions} positions, which leaves no room for an answer. "
            f"Set src_length (now {src_length}) to {most} or less: that leaves {positions - most} for the answer (max_length "
            f"{generation.max_length})."
        )
    return PromptRow(row, ids, prompt.cut, record.source)


def output_settings(arguments: PredictArguments, dtype: str, tokenizer: Tokenizer, template: Template) -> dict[str, Any]:
    """What the outputs depend on, to be kept beside them: model, tokenizer, template and generation keys."""
    generation, folder = arguments.generation, Path(arguments.model.model_name_or_path)
    files = {path.resolve() for path in find_weights(folder, arguments.model.allow_pickle).values()}
    return {
        "model": str(folder.resolve()),
        "weights": sorted(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files),
        **({"adapter": adapter_hash(arguments.adapter.lora_path)} if arguments.adapter.lora_path else {}),
        **{key: value for key, value in asdict(arguments.rows).items() if value is not None and key != "on_bad_row"},
        "dtype": dtype,
        "tokenizer": tokenizer.fingerprint,
        "template": template.fingerprint,
        **{key: getattr(generation, key) for key in text_keys(generation)},
    }


def predict_rows(
    generation: GenerationArguments,
    model: Decoder,
    rows: list[PromptRow],
    done: int,
    settings: GenerationSettings,
    tokenizer: Tokenizer,
    topology: Topology,
    forward: Forward,
) -> None:
    """Generate for all rows from ``done`` on, and append them window by window.

    The processes of the data axis take turns in a window's rows, and process 0 writes them all. forward: how they run the model.
    """
    batch_size, output_file = generation.batch_size, Path(generation.output_file)
    stop_strings = split_stop_strings(generation.stop_strings)
    part, parts = topology.data.rank, topology.data.size
    tokens = 0
    with tqdm(total=len(rows), initial=done, unit="row", dynamic_ncols=True, disable=not (shows_bars() and topology.is_main)) as bar:

        def finished(_: int, answers: list[list[int]]) -> None:
            nonlocal tokens
            tokens += sum(map(len, answers))
            bar.set_postfix({"tokens": f"{tokens:,}"}, refresh=False)
            bar.update()

        for start in range(done, len(rows), batch_size * WINDOW_BATCHES * parts):
            window = rows[start : start + batch_size * WINDOW_BATCHES * parts]
            places = range(len(window))[part::parts]
            prompts, row_ids = [window[place].prompt for place in places], [start + place for place in places]
            answers = generate(model, prompts, settings, batch_size, row_ids, finished, forward)
            shares = gather_values(topology.data, answers)
            if topology.is_main:
                for share in shares[1:]:
                    for found in share:
                        finished(0, found)
                answers = [shares[place % parts][place // parts] for place in range(len(window))]
                texts = [[decode_answer(tokenizer, answer, settings.stop_ids, stop_strings) for answer in found] for found in answers]
                outputs = texts if generation.num_return_sequences > 1 else [text for [text] in texts]
                append_outputs(output_file, [row.row for row in window], outputs)


def decode_answer(tokenizer: Tokenizer, answer: list[int], stop_ids: tuple[int, ...], stop_strings: tuple[str, ...]) -> str:
    """The text of an answer without its end token, and cut where it holds a stop string."""
    return cut_at_stop(tokenizer.decode(answer[:-1] if answer and answer[-1] in stop_ids else answer), stop_strings)
