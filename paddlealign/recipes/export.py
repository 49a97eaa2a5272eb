"""Export: a model read, and written again in another dtype, in other shards, or in PaddleNLP's layout."""

from pathlib import Path

from paddlealign.arguments.checks import shard_bytes
from paddlealign.arguments.results import ExportArguments
from paddlealign.arguments.show import render
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.models.paddlenlp_layout import paddlenlp_config, paddlenlp_tokenizer, save_paddlenlp_model
from paddlealign.models.weight_files import GENERATION_FILE, files_beside
from paddlealign.models.weights import load_model, save_model
from paddlealign.recipes.adapter import generation_folder, read_adapter, tokenizer_folder
from paddlealign.recipes.device import say
from paddlealign.recipes.merging import merged_model, verify


def run(arguments: ExportArguments) -> None:
    """Write the model again as the arguments say. Raises UserError."""
    say(render(arguments))
    for note in arguments.notes:
        say(f"note: {note}")
    folder, target = Path(arguments.model.model_name_or_path), arguments.target
    config = read_config(folder)
    dtype = config.dtype if target.dtype == "auto" else target.dtype
    lora_path = arguments.adapter.lora_path
    tokenizer_dir = tokenizer_folder(arguments.model, lora_path)
    side_files = files_beside(generation_folder(arguments.model, lora_path), tokenizer_dir)
    adapter = read_adapter(lora_path, str(folder), config) if lora_path else None
    if adapter and target.format == "paddlenlp":
        raise UserError(
            "lora_path with format paddlenlp: a merged model is verified in HuggingFace's layout. Merge with format huggingface, then "
            "export what was written."
        )
    if target.format == "paddlenlp":
        paddlenlp_config(config, dtype)  # what cannot be is told before the weights are read
        made = {}
        if side_files.keys() & {"tokenizer.json", "tokenizer.model"}:
            made = paddlenlp_tokenizer(Tokenizer.load(tokenizer_dir))
        # The tokenizer's other files say what these say, and PaddleNLP reads some of them otherwise.
        side_files = {name: content for name, content in side_files.items() if name == GENERATION_FILE} | made
    if lora_path and adapter:
        model, apart = merged_model(str(folder), lora_path, adapter, arguments.model.allow_pickle)
    else:
        model = load_model(folder, dtype, allow_pickle=arguments.model.allow_pickle)
    save = save_paddlenlp_model if target.format == "paddlenlp" else save_model
    save(model.state_dict().__getitem__, config, Path(target.output_dir), side_files, dtype, shard_bytes(target.max_shard_size))
    if adapter:
        verify(model, apart, target.output_dir, dtype)
    if target.format == "paddlenlp" and config.tie_embeddings:
        say("note: PaddleNLP warns of a newly initialised lm_head when it loads this model; its head is the embedding, and nothing is lost")
    say(f"done: {dtype}, in the layout of {target.format}, in {target.output_dir}")
