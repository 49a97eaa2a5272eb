"""Our decoder against PaddleNLP's LLaMA and Qwen2 classes on the same weights, where those are right."""

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from paddlealign.models.attention import packed_attention
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.weights import load_model

GOLDEN = Path(__file__).parent / "golden"


def paddlenlp_twin(ours: Decoder, config: DecoderConfig) -> paddle.nn.Layer:
    """PaddleNLP's model of the same family and shape with our weights; both keep linear layers as [in, out]."""
    sizes = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_embeddings,
    }
    twin = LlamaForCausalLM(LlamaConfig(**sizes)) if config.family == "llama" else Qwen2ForCausalLM(Qwen2Config(**sizes))
    state = {name.replace("model.", f"{config.family}.", 1): tensor for name, tensor in ours.state_dict().items()}
    missing, unexpected = twin.set_state_dict(state)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    twin.eval()
    return twin


# Not here: LLaMA's biases and the llama3 scaling as transformers has it, which these classes do not have.
@pytest.mark.parametrize("name", ("llama1", "llama2_gqa", "qwen2", "qwen2_tied"))
def test_same_logits(name: str) -> None:
    config = read_config(GOLDEN / name)
    ours = load_model(GOLDEN / name, "float32")
    input_ids = paddle.to_tensor(np.load(GOLDEN / name / "golden.npz")["input_ids"])
    rows, length = input_ids.shape
    position_ids = paddle.arange(length).unsqueeze(0).expand([rows, length])
    attend = packed_attention(np.full([rows, 1, length, 1], length, "int32"))
    with paddle.no_grad():
        expected = paddlenlp_twin(ours, config)(input_ids)
        expected = expected[0] if isinstance(expected, tuple) else expected
        logits = ours.logits(ours(input_ids, position_ids, attend))
    assert float((logits - expected).abs().max()) <= 2e-5
