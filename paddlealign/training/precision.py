"""In which dtype a run computes: float32, or half precision as PaddleNLP's users know it (O1, O2)."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import Tensor
from paddle.optimizer import AdamW


@dataclass(frozen=True)
class Precision:
    """How numbers are held.

    dtype: "float32", "bfloat16" or "float16". level: "O1" keeps float32 weights and multiplies in dtype; "O2" holds the weights in
    dtype, with float32 masters in the optimizer and float32 gradients. scaler: loss scaling, for float16 only.
    """

    dtype: str
    level: str
    scaler: paddle.amp.GradScaler | None

    def autocast(self) -> AbstractContextManager:
        """The context for a forward pass: matmuls in dtype under O1; nothing to do otherwise."""
        if self.dtype == "float32" or self.level == "O2":
            return nullcontext()
        return paddle.amp.auto_cast(level="O1", dtype=self.dtype)  # type: ignore[arg-type]

    @property
    def weights_dtype(self) -> str:
        """The dtype that the trained weights are held in."""
        return self.dtype if self.level == "O2" else "float32"

    def backward(self, output: Tensor, gradient: Tensor | None = None) -> None:
        """Add the gradients of a loss to the parameters, scaled where losses are; or of another output, whose ``gradient`` is given."""
        if gradient is not None:
            paddle.autograd.backward([output], [gradient])
            return
        loss = output
        if self.scaler is not None:
            # GradScaler switches itself off for good unless the last auto_cast was a float16 one, and O2 has no other.
            with paddle.amp.auto_cast(enable=False, dtype="float16"):
                loss = self.scaler.scale(loss)
        loss.backward()

    @paddle.no_grad()
    def unscale(self, optimizer: AdamW, parameters: Iterable[Tensor]) -> None:
        """Take the loss's scale out of the gradients, also of those parameters that another process updates."""
        if self.scaler is None:
            return
        self.scaler.unscale_(optimizer)
        own = {id(parameter) for parameter in optimizer._parameter_list}
        for parameter in parameters:
            if id(parameter) not in own and parameter.grad is not None:
                parameter.grad.scale_(1.0 / float(self.scaler.state_dict()["scale"][0]))

    def step(self, optimizer: AdamW, finite: bool) -> None:
        """Update the weights where the step's gradient is finite; the loss scaler also lowers its scale where it is not.

        finite: whether the gradient is, over all processes. GradScaler has looked at this one's only.
        """
        if self.scaler is not None:
            self.scaler._found_inf = paddle.to_tensor([not finite])
            self.scaler.step(optimizer)
            self.scaler.update()
        elif finite:
            optimizer.step()

    def scaler_state(self) -> dict[str, Any] | None:
        """The loss scaler's state as plain values, for a checkpoint."""
        if self.scaler is None:
            return None
        state = self.scaler.state_dict()
        return {**state, "scale": [float(state["scale"][0])]}

    def load_scaler(self, state: dict[str, Any] | None) -> None:
        """Put the loss scaler's state back."""
        if self.scaler is not None and state is not None:
            self.scaler.load_state_dict(state)  # type: ignore[arg-type]


def choose_precision(bf16: bool, fp16: bool, level: str, device: str) -> tuple[Precision, str | None]:
    """Decide the precision, and say in one line where it is not what was asked for.

    Paddle's CPU build has no half-precision kernels, so on "cpu" a run that asks for them computes in float32.
    """
    asked = "bfloat16" if bf16 else "float16" if fp16 else "float32"
    if asked != "float32" and device == "cpu":
        return Precision("float32", "O1", None), f"{'bf16' if bf16 else 'fp16'}: Paddle has no {asked} kernels on CPU; computing in float32"
    scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**15) if asked == "float16" else None
    return Precision(asked, level, scaler), None
