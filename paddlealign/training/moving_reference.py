"""A reference that follows the policy: "Learn Your Reference Model for Real Good Alignment", Gorbatovski et al. 2024 (arXiv 2404.09656)."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import paddle

from paddlealign.models.decoder import Decoder
from paddlealign.models.other_adapter import OtherAdapter, worn
from paddlealign.parallel.sharding import Sharding


@dataclass(frozen=True)
class MovingReference:
    """Every ``every`` optimizer steps ``reference <- share policy + (1 - share) reference``: the paper's soft update, its hard one at 1.

    model: a copy of the policy; or the policy, whose adapter ``other`` is the reference then. sharding: of that model.
    """

    every: int
    share: float
    model: Decoder
    sharding: Sharding
    other: OtherAdapter | None = None

    def standing(self) -> AbstractContextManager[None]:
        """``model`` as the reference, whose values are then those that it calls trained."""
        return nullcontext() if self.other is None else worn(self.model, self.other)


@paddle.no_grad()
def follow(moving: MovingReference | None, policy: Decoder, step: int) -> None:
    """Let the reference follow the policy where it is time: after optimizer step number ``step`` (1 is the first), as TRL does.

    Each process moves what it holds of the tensors, those of the policy being as they are after an update: at sharding's stage 3 each has
    its own layers' alone. The mean is computed in float32, whatever the dtypes.
    """
    if moving is None or step % moving.every:
        return
    moving.sharding.leave()
    trained = dict(policy.trained())
    with moving.standing():
        held = moving.model.trained()
    for name, values in held:
        if values._is_initialized():
            mean = trained[name].astype("float32") * moving.share + values.astype("float32") * (1.0 - moving.share)
            paddle.assign(mean.astype(values.dtype), output=values)
