"""The head of a reward model: one number for a text, read where its last token stands. transformers knows such a model as a classifier
with one label (``LlamaForSequenceClassification``), whose weights are the decoder's and ``score.weight``, [1, hidden] in files.
"""

from dataclasses import replace

import numpy as np
import paddle
from paddle import Tensor, nn

from paddlealign.models.config import DecoderConfig
from paddlealign.models.families import FAMILIES


class ScoreHead(nn.Layer):
    """``r = w . h`` with the hidden state h after the last norm, without a bias. weight: [hidden, 1], held whole by every process."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = self.create_parameter([hidden_size, 1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, hidden: Tensor) -> Tensor:
        """[texts, hidden] of any float dtype to float32 [texts].

        Multiplied in float32 whatever the weights are held in: in bfloat16 two rewards near 5 that differ by less than 0.03 would be one.
        """
        with paddle.amp.auto_cast(enable=False):
            return paddle.matmul(hidden.astype("float32"), self.weight.astype("float32")).squeeze(1)


def with_score_head(config: DecoderConfig, pad_token_id: int | None = None) -> DecoderConfig:
    """The same decoder with a score head, whatever head it has; its config.json is what transformers wants of a reward model.

    pad_token_id: a token that ends no text. transformers reads the score at the last token that is not this one. None: as config.json has
    it, for a model that is not saved.
    """
    kept = {key: value for key, value in config.source.items() if key not in ("num_labels", "problem_type")}
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    source = {**kept, **labels, "architectures": [FAMILIES[config.family].score_architecture]}
    if pad_token_id is not None:
        source["pad_token_id"] = pad_token_id
    return replace(config, head="score", tie_embeddings=False, source=source)


@paddle.no_grad()
def initialise_score(head: ScoreHead, seed: int) -> None:
    """Draw a new head from a normal distribution of variance 1 / (hidden + 1) (Stiennon et al. 2020, arXiv 2009.01325, appendix B.1).

    The hidden states after the last norm have a mean square of about 1, so rewards begin with a variance of about 1. Drawn in NumPy: the
    same on every device and in every process.
    """
    size = head.weight.shape[0]
    drawn = np.random.default_rng(seed).standard_normal((size, 1)) / np.sqrt(size + 1)
    head.weight.set_value(paddle.to_tensor(drawn.astype("float32")).astype(head.weight.dtype))
