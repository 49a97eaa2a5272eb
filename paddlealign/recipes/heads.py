"""Which head a command needs: log-probs of tokens (a language model), or one number for a text (a reward model)."""

from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig


def need_language_head(config: DecoderConfig, key: str) -> None:
    """Refuse a reward model. key: names the model in the message."""
    if config.head != "language":
        raise UserError(
            f"{key}: this is a reward model ({_architecture(config)}), which scores texts and knows no next token. Give a language model "
            "here; reward models are for reward_main.py and evaluate.py rewards."
        )


def need_score_head(config: DecoderConfig, key: str) -> None:
    """Refuse a language model. key: names the model in the message."""
    if config.head != "score":
        raise UserError(
            f"{key}: this is a language model ({_architecture(config)}), which has no score head. Give a reward model; reward_main.py with "
            "do_train makes one."
        )


def _architecture(config: DecoderConfig) -> str:
    return ", ".join(config.source.get("architectures") or [config.family])
