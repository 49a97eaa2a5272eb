"""Export: a model read, and written again in another dtype, in other shards, or in PaddleNLP's layout."""

from pathlib import Path

from paddlealign.arguments.export_fields import shard_bytes
from paddlealign.arguments.results import ExportArguments
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.paddlenlp_layout import paddlenlp_config, paddlenlp_tokenizer, save_paddlenlp_model
from paddlealign.models.score_head import with_score_head
from paddlealign.models.weight_files import GENERATION_FILE, files_beside
from paddlealign.models.weights import save_model
from paddlealign.recipes.adapter import (
    generation_folder,
    load_adapted,
    load_tokenizer,
    read_adapter,
    tokenizer_folder,
    with_adapter,
)
from paddlealign.recipes.device import introduce, say
from paddlealign.recipes.merging import merge_adapter, verify
from paddlealign.recipes.padding import choose_pad_token, with_pad_token


def run(arguments: ExportArguments) -> None:
    """Write the model again as the arguments say. Raises UserError."""
    introduce(arguments)
    folder, target = Path(arguments.model.model_name_or_path), arguments.target
    lora_path = arguments.adapter.lora_path
    config = with_adapter(read_config(folder), lora_path)
    dtype = config.dtype if target.dtype == "auto" else target.dtype
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
            made = paddlenlp_tokenizer(load_tokenizer(arguments.model, lora_path))
        # The tokenizer's other files say what these say, and PaddleNLP reads some of them otherwise.
        side_files = {name: content for name, content in side_files.items() if name == GENERATION_FILE} | made
    if adapter and adapter.whole:
        config, side_files = padded(config, side_files, load_tokenizer(arguments.model, lora_path))
    model = load_adapted(str(folder), config, "float32" if adapter else dtype, arguments.model.allow_pickle, lora_path)
    apart = merge_adapter(model) if adapter else None
    save = save_paddlenlp_model if target.format == "paddlenlp" else save_model
    save(model.state_dict().__getitem__, config, Path(target.output_dir), side_files, dtype, shard_bytes(target.max_shard_size))
    if apart is not None:
        verify(model, apart, target.output_dir, dtype)
    if target.format == "paddlenlp" and config.tie_embeddings:
        say("note: PaddleNLP warns of a newly initialised lm_head when it loads this model; its head is the embedding, and nothing is lost")
    say(f"done: {dtype}, in the layout of {target.format}, in {target.output_dir}")


def padded(config: DecoderConfig, side_files: dict[str, bytes], tokenizer: Tokenizer) -> tuple[DecoderConfig, dict[str, bytes]]:
    """Config and tokenizer files of a reward model, which name a pad token that ends no answer, with a chat template or without."""
    ends = {tokenizer.eos_id, tokenizer.special_tokens.get(load_template(tokenizer, "auto").end_token, tokenizer.eos_id)}
    text, index = choose_pad_token(tokenizer, ends, config.source.get("pad_token_id"), config.vocab_size)
    return with_score_head(config, index), with_pad_token(side_files, tokenizer, text)
