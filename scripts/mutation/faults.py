"""The faults: what stands in the code, what a slip of the hand would make of it, and the test files that must notice.

They are the mistakes that programs of this kind were seen to make: a sign, a mean for a sum, a mask that is off by one, a gradient that
is not added up. Each names its line by its own text, so one that the code has moved away from is told instead of passed over.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One line of the package, written wrongly.

    what: the mistake in words. file: under paddlealign/. before: text that stands in the file once. after: what takes its place.
    tests: files under tests/, of which one at least must fail.
    """

    what: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


_OBJECTIVES = ("parity/test_objectives.py",)
_CURVES = ("parity/test_curves.py",)
_ORDER = ("unit/test_data_order.py",)
_BATCHES = ("parity/test_packed_batches.py",)
_ENCODING = ("unit/test_data_encoding.py",)
_PACKING = ("unit/test_data_packing.py",)
_KERNELS = ("parity/test_kernels.py",)
_LOGITS = ("parity/test_logits.py",)
_OPTIMIZER = ("parity/test_optimizer.py",)
_TRAINING = ("end_to_end/test_training.py",)
_LOOP = ("unit/test_loop.py",)
_EQUALITY = ("distributed/test_equality.py",)

FAULTS: tuple[Fault, ...] = (
    # Objectives
    Fault(
        "chosen and rejected are swapped",
        "objectives/pairs.py",
        "return self.scores[:, 0] - self.scores[:, 1]",
        "return self.scores[:, 1] - self.scores[:, 0]",
        _OBJECTIVES,
    ),
    Fault(
        "the reference is added, not taken away",
        "objectives/pairs.py",
        "logps - reference_logps.reshape([-1, 2])",
        "logps + reference_logps.reshape([-1, 2])",
        _OBJECTIVES,
    ),
    Fault(
        "beta stands outside the sigmoid",
        "objectives/difference.py",
        "return smoothed(pairs.difference.scale(numbers.beta), numbers.label_smoothing)",
        "return smoothed(pairs.difference, numbers.label_smoothing).scale(numbers.beta)",
        _OBJECTIVES,
    ),
    Fault(
        "smoothing has the sign of the wrong side",
        "objectives/difference.py",
        "return agreed.scale(1.0 - label_smoothing) - log_sigmoid(-margin).scale(label_smoothing)",
        "return agreed.scale(1.0 - label_smoothing) + log_sigmoid(-margin).scale(label_smoothing)",
        _OBJECTIVES,
    ),
    Fault(
        "IPO's target is 1 / beta",
        "objectives/difference.py",
        "return paddle.square(difference - 0.5 / numbers.beta)",
        "return paddle.square(difference - 1.0 / numbers.beta)",
        _OBJECTIVES,
    ),
    Fault(
        "the hinge's margin is 0",
        "objectives/difference.py",
        "return relu(1.0 - pairs.difference.scale(numbers.beta))",
        "return relu(-pairs.difference.scale(numbers.beta))",
        _OBJECTIVES,
    ),
    Fault(
        "SimPO adds its gamma",
        "objectives/policy_alone.py",
        "rewards[:, 0] - rewards[:, 1] - numbers.simpo_gamma",
        "rewards[:, 0] - rewards[:, 1] + numbers.simpo_gamma",
        _OBJECTIVES,
    ),
    Fault(
        "ORPO's odds forget the denominator",
        "objectives/policy_alone.py",
        "odds = logps - log1mexp(logps)",
        "odds = logps",
        _OBJECTIVES,
    ),
    Fault(
        "log(1 - e^x) swaps its branches",
        "objectives/policy_alone.py",
        "near = x > -0.6931472",
        "near = x < -0.6931472",
        _OBJECTIVES,
    ),
    Fault(
        "the rejected answer's cross-entropy is mixed in",
        "objectives/policy_alone.py",
        "return -pairs.whole[:, 0]\n",
        "return -pairs.whole[:, 1]\n",
        _OBJECTIVES,
    ),
    Fault(
        "a tie counts as ranked right",
        "objectives/preference.py",
        '"rewards/accuracies": (margin > 0)',
        '"rewards/accuracies": (margin >= 0)',
        _OBJECTIVES,
    ),
    Fault(
        "KTO's weights are swapped",
        "objectives/unpaired.py",
        "desirable.scale(desirable_weight) + (1.0 - desirable).scale(undesirable_weight)",
        "desirable.scale(undesirable_weight) + (1.0 - desirable).scale(desirable_weight)",
        _OBJECTIVES,
    ),
    Fault(
        "KTO's estimate may be negative",
        "objectives/unpaired.py",
        "max(0.0, float(ratios.mean()))",
        "float(ratios.mean())",
        _OBJECTIVES,
    ),
    Fault(
        "the reward margin is added",
        "objectives/reward.py",
        "-log_sigmoid(difference - margins).sum()",
        "-log_sigmoid(difference + margins).sum()",
        ("parity/test_rewards.py",),
    ),
    Fault(
        "cross-entropy is a mean over the micro-batch",
        "objectives/sft.py",
        '"loss": -token_logps.sum()',
        '"loss": -token_logps.mean()',
        _CURVES,
    ),
    Fault(
        "a micro-batch is not divided by the step's count",
        "objectives/result.py",
        'parts = [values["loss"] / max(counts[per], 1)',
        'parts = [values["loss"] / 1',
        _CURVES,
    ),
    Fault(
        "a response's log-prob is a mean over its tokens",
        "objectives/response.py",
        'return paddle.scatter_nd_add(paddle.zeros([responses], "float32"), owner.unsqueeze(1), token_logps)',
        'total = paddle.scatter_nd_add(paddle.zeros([responses], "float32"), owner.unsqueeze(1), token_logps)\n'
        "    return total / max(1, len(owner) // responses)",
        _OBJECTIVES + _CURVES,
    ),
    Fault(
        "the forward KL's exponent has the wrong sign",
        "objectives/divergence.py",
        "paddle.exp(ratios.scale(alpha - 1.0)",
        "paddle.exp(ratios.scale(1.0 - alpha)",
        _OBJECTIVES,
    ),
    # The step
    Fault(
        "counts are those of this process",
        "training/step.py",
        "sum_over(topology.data, np.array(list(own.values())))",
        "np.array(list(own.values()))",
        _EQUALITY,
    ),
    Fault(
        "gradients are not cleared after the step",
        "training/step.py",
        "parameter.clear_gradient(False)",
        "parameter.clear_gradient(True) if parameter.grad is None else None",
        _CURVES,
    ),
    Fault(
        "only the first micro-batch's sums are logged",
        "training/step.py",
        "for part in totals]).sum(0)",
        "for part in totals[:1]]).sum(0)",
        _TRAINING,
    ),
    Fault(
        "weights are updated by a gradient that is no number",
        "training/step.py",
        "precision.step(optimizer, math.isfinite(norm) and finite_loss)",
        "precision.step(optimizer, True)",
        _LOOP + _OPTIMIZER + ("unit/test_precision.py", "unit/test_loss_scaling.py"),
    ),
    Fault(
        "a finite gradient is clipped to its own norm",
        "training/optimizer.py",
        "_scale(list(gradients.values()), largest / norm)",
        "_scale(list(gradients.values()), norm / largest)",
        _OPTIMIZER,
    ),
    Fault(
        "the norm forgets its square root",
        "training/optimizer.py",
        "norm = float(paddle.sqrt(total))",
        "norm = float(total)",
        _OPTIMIZER,
    ),
    Fault(
        "norms and biases are decayed",
        "training/optimizer.py",
        'return not name.endswith((".bias", "norm.weight"))',
        "return True",
        _OPTIMIZER,
    ),
    Fault(
        "warm-up begins one step late",
        "training/optimizer.py",
        "return peak * step / warmup",
        "return peak * max(0, step - 1) / warmup",
        _OPTIMIZER,
    ),
    Fault(
        "the cosine goes through a whole period",
        "training/optimizer.py",
        "math.cos(math.pi * min(1.0, progress))",
        "math.cos(2 * math.pi * min(1.0, progress))",
        _OPTIMIZER,
    ),
    Fault(
        "the reference follows the policy one step late",
        "training/moving_reference.py",
        "if moving is None or step % moving.every:",
        "if moving is None or (step - 1) % moving.every:",
        ("unit/test_moving_reference.py",),
    ),
    Fault(
        "the moving reference takes the other share",
        "training/moving_reference.py",
        '* moving.share + values.astype("float32") * (1.0 - moving.share)',
        '* (1.0 - moving.share) + values.astype("float32") * moving.share',
        ("unit/test_moving_reference.py",),
    ),
    Fault(
        "LD-DPO weighs the shared tokens",
        "objectives/response.py",
        "return paddle.where(place < shared.gather(owner), paddle.ones_like(place), paddle.full_like(place, alpha))",
        "return paddle.where(place >= shared.gather(owner), paddle.ones_like(place), paddle.full_like(place, alpha))",
        _OBJECTIVES,
    ),
    # Rows, tokens, batches
    Fault(
        "a token is predicted from itself",
        "data/packing.py",
        "before = np.where(scored > 0, column + scored - 1, start + prompt - 1)",
        "before = np.where(scored > 0, column + scored, start + prompt - 1)",
        _PACKING + _BATCHES,
    ),
    Fault(
        "the second answer begins from the first one's end",
        "data/packing.py",
        "before = np.where(scored > 0, column + scored - 1, start + prompt - 1)",
        "before = column + scored - 1",
        _PACKING + _BATCHES,
    ),
    Fault(
        "the rejected answer sees the chosen one",
        "data/packing.py",
        "visible_until[number, column:end] = end",
        "visible_until[number, column:end] = start + example.length",
        _PACKING + _BATCHES,
    ),
    Fault(
        "examples of a row see each other",
        "data/packing.py",
        "visible_until[number, start : start + prompt] = start + example.length",
        "visible_until[number, start : start + prompt] = width",
        _PACKING + _BATCHES,
    ),
    Fault(
        "positions go on from answer to answer",
        "data/packing.py",
        "position_ids[number, column:end] = np.arange(prompt, prompt + size)",
        "position_ids[number, column:end] = np.arange(column - start, column - start + size)",
        _PACKING + _BATCHES,
    ),
    Fault(
        "the prompt's end is cut where its start should be",
        "data/encoding.py",
        "return np.concatenate([ids[:1], ids[len(ids) - (room - 1) :]])",
        "return ids[:room]",
        _ENCODING,
    ),
    Fault(
        "a cut answer keeps one token too few",
        "data/encoding.py",
        "length = int(np.flatnonzero(scored)[-1]) + 1 if scored.any() else 0",
        "length = int(np.flatnonzero(scored)[-1]) if scored.any() else 0",
        _ENCODING,
    ),
    Fault(
        "the token after an answer is scored",
        "data/encoding.py",
        "scored |= (one.ends > start) & (one.ends <= end)",
        "scored |= (one.ends > start) & (one.starts <= end)",
        _ENCODING + ("parity/test_token_ids.py",),
    ),
    Fault(
        "a BOS is written twice",
        "data/encoding.py",
        "if not tokenizer.add_bos or (len(tokens.ids) and tokens.ids[0] == tokenizer.bos_id):",
        "if not tokenizer.add_bos:",
        _ENCODING + ("unit/test_data_tokenizer.py", "parity/test_token_ids.py"),
    ),
    Fault(
        "every epoch has the same order",
        "data/order.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([seed, 0])",
        _ORDER + ("unit/test_feed.py",),
    ),
    Fault(
        "a mixture begins each round anew",
        "data/order.py",
        "start, end = round(epoch * weight * count), round((epoch + 1) * weight * count)",
        "start, end = 0, round(weight * count)",
        ("property/test_shares.py",),
    ),
    Fault(
        "a share of the data overlaps its neighbour",
        "data/shares.py",
        "if start <= place(record) < end]",
        "if start <= place(record) <= end + 0.01]",
        ("property/test_shares.py", "unit/test_data_repeats.py"),
    ),
    # The model
    Fault(
        "RMSNorm adds no epsilon",
        "models/kernels.py",
        "paddle.rsqrt(_row_means(paddle.square(wide)).scale_(1.0, bias=epsilon))",
        "paddle.rsqrt(_row_means(paddle.square(wide)))",
        _KERNELS + _LOGITS,
    ),
    Fault(
        "RMSNorm's gradient forgets the part along the vector",
        "models/kernels.py",
        "grad_x.subtract_(_outer(along, paddle.ones([x.shape[-1]]), x).multiply_(wide))",
        "",
        _KERNELS,
    ),
    Fault(
        "the rotation's gradient turns forward",
        "models/kernels.py",
        "return _rotate(grad, cos, sin, back=True)",
        "return _rotate(grad, cos, sin, back=False)",
        _KERNELS,
    ),
    Fault(
        "SwiGLU's slope lacks the sigmoid",
        "models/kernels.py",
        "slope = (1.0 - sigmoid).multiply_(silu).add_(sigmoid)",
        "slope = (1.0 - sigmoid).multiply_(silu)",
        _KERNELS,
    ),
    Fault(
        "a token sees the one after it",
        "models/attention_blocks.py",
        "seen = (keys <= queries) & (until[keys] > queries)",
        "seen = (keys <= queries + 1) & (until[keys] > queries)",
        _BATCHES + _LOGITS,
    ),
    Fault(
        "a window is one token too wide",
        "models/attention_blocks.py",
        "positions[queries] - positions[keys] < window",
        "positions[queries] - positions[keys] <= window",
        _LOGITS + ("unit/test_flashmask.py",),
    ),
    Fault(
        "attention's gradient forgets its scale",
        "models/cpu_attention.py",
        "heads.key[keys], of_queries[queries], heads.scale, add=True)",
        "heads.key[keys], of_queries[queries], add=True)",
        _LOGITS + _BATCHES,
    ),
    Fault(
        "the head's gradient is that of one chunk",
        "models/head.py",
        "for stop in range(rows % size or size, rows + 1, size)]",
        "for stop in range(rows % size or size, rows % size or size + 1)]",
        ("unit/test_scores.py",) + _LOGITS + _KERNELS + _BATCHES,
    ),
    Fault(
        "the head's softmax is not taken away",
        "models/head.py",
        "shares *= times[own, None]",
        "shares *= 0.0 * times[own, None]",
        _KERNELS + _LOGITS,
    ),
    Fault(
        "what the head keeps of forward is not scaled to a softmax",
        "models/head.py",
        "_scaled(ctx.shares, -upstream * ctx.scales)",
        "_scaled(ctx.shares, -upstream)",
        _KERNELS + _LOGITS,
    ),
    Fault(
        "no token is ever the first choice",
        "models/head.py",
        "correct.append(picked >= highest)",
        "correct.append(picked > highest)",
        _KERNELS,
    ),
    Fault(
        "an adapter is merged without its scale",
        "models/lora.py",
        "paddle.matmul(layer.lora_A, layer.lora_B) * adapter.settings.scale)",
        "paddle.matmul(layer.lora_A, layer.lora_B))",
        ("unit/test_lora.py", "parity/test_lora.py"),
    ),
    Fault(
        "the base is trained beside its adapter",
        "models/lora.py",
        "parameter.stop_gradient = name not in settings.whole",
        "parameter.stop_gradient = False",
        ("unit/test_lora.py", "parity/test_lora.py"),
    ),
    # Several processes
    Fault(
        "gradients are not added up over the ranks",
        "parallel/sharding.py",
        "if axis.size > 1 and parameter.grad is not None:\n                dist.all_reduce",
        "if axis.size > 99 and parameter.grad is not None:\n                dist.all_reduce",
        _EQUALITY,
    ),
    Fault(
        "updated weights stay with their owner",
        "parallel/sharding.py",
        "if self._shards.size == 1 or self.stage == 0:",
        "if self._shards.size == 1 or self.stage <= 1:",
        _EQUALITY + ("distributed/test_sharding.py",),
    ),
    Fault(
        "a part of the vocabulary is not added up",
        "parallel/vocabulary.py",
        "dist.all_reduce(whole, group=part.axis.group)",
        "whole = whole + 0.0",
        ("distributed/test_vocabulary.py",),
    ),
    # What is kept and told
    Fault(
        "the step's number is one behind after a resume",
        "training/loop.py",
        "for step in task.feed.steps(first=state.step):",
        "for step in task.feed.steps(first=max(0, state.step - 1)):",
        _TRAINING,
    ),
    Fault(
        "a worse evaluation is called the best",
        "training/loop.py",
        "* (1 if greater else -1)",
        "* (-1 if greater else 1)",
        _LOOP,
    ),
    Fault(
        "a lost row counts as a tie",
        "evaluation/winners.py",
        "0.5, (margins > 0)",
        "0.5, (margins < 0)",
        ("unit/test_evaluation.py",),
    ),
)
