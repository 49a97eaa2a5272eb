"""Plans on paper: every formula on cases that were worked out by hand, memory against Paddle's own count, and what a search chooses."""

import gc
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.data.packing import make_batch
from paddlealign.models.config import DecoderConfig, parse_config, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.parameters import cut_layers, cut_problem, held_shapes, holding_stage, parameter_shapes
from paddlealign.planning.communication import all_reduce, gather, relay, step_traffic
from paddlealign.planning.compute import head_forward, layer_weights, layers_forward, model_flops, stage_flops
from paddlealign.planning.layout import Job, Layout, Row, hold
from paddlealign.planning.memory import MOMENTS, Memory, head_bytes, layer_bytes, met_bytes, stage_bytes, stage_memory, unmet_bytes
from paddlealign.planning.search import layouts, search
from paddlealign.planning.step import GIB, Figures, Plan, plan_step, seconds_of
from paddlealign.recipes.entry import main
from paddlealign.training.objective import sft_objective
from paddlealign.training.step import accumulate_gradients, apply_gradients
from scripts.plan_page import MODELS
from tests.small_runs import FLOAT32, ROOT, optimizer_of, write_rows

COUNTS = {"7B": 6_738_415_616, "13B": 13_015_864_320, "70B": 68_976_648_192}
ALONE = Layout(1, 1, 1, 0, 1, False, False, 1, 1)
FIGURES = Figures(memory_gib=80, reserve_gib=8, per_node=8, tflops=100, achieved_share=0.5, intra_gbs=100, inter_gbs=10)


def llama2(name: str) -> DecoderConfig:
    return parse_config({"model_type": "llama", "vocab_size": 32000, **MODELS[name]}, name)


def small(**keys) -> DecoderConfig:
    """hidden 8, 4 layers, 4 heads of 2, 2 of them for keys, intermediate 16, 10 tokens."""
    shape = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16}
    return parse_config({"model_type": "llama", **shape, "vocab_size": 10, **keys}, "small")


def job_of(config: DecoderConfig, row: Row, **keys) -> Job:
    return replace(Job(config, None, "bfloat16", "O2", row, row), **keys)


# Parameters and what a device holds of them


@pytest.mark.parametrize("name", MODELS)
def test_the_parameters_of_llama2_are_counted_exactly(name: str):
    config = llama2(name)
    assert sum(math.prod(shape) for shape in parameter_shapes(config).values()) == COUNTS[name]
    assert hold(config, ALONE, 0).total == COUNTS[name]
    stages = [hold(config, replace(ALONE, pipeline=4), stage) for stage in range(4)]
    assert sum(stage.total for stage in stages) == COUNTS[name]
    norms = (2 * config.num_layers + 1) * config.hidden_size
    assert 8 * (hold(config, replace(ALONE, tensor=8), 0).total - norms) + norms == COUNTS[name]


def test_what_a_device_holds_of_a_small_model():
    """A layer: q and o 8 x 8, k and v 8 x 4, three of 8 x 16, two norms of 8; embedding and head 10 x 8, last norm 8."""
    layer = 2 * 64 + 2 * 32 + 3 * 128 + 16
    whole = hold(small(), ALONE, 0)
    assert (whole.layers, whole.layer, whole.total, whole.whole) == (4, layer, 4 * layer + 168, 168)
    assert (whole.head, whole.embedding, whole.largest, whole.owned) == (80, 80, 128, whole.total)
    last = hold(small(), replace(ALONE, tensor=2, pipeline=3), 2)
    half = (layer - 16) // 2 + 16
    assert (last.layers, last.layer, last.total, last.head, last.embedding) == (2, half, 2 * half + 48, 40, 0)
    tied = small(tie_word_embeddings=True)
    ends = [hold(tied, replace(ALONE, pipeline=2), stage) for stage in (0, 1)]
    assert [(it.embedding, it.head, it.whole) for it in ends] == [(80, 0, 80), (0, 80, 88)]
    shared = hold(small(), replace(ALONE, data=4, sharding=1, shards=4), 0)
    # 2536 elements in pieces that are multiples of 8 cannot be spread more evenly than to 640 and less
    assert whole.total == 2536 and shared.owned == 640


def test_a_layers_stage_is_the_one_that_cut_layers_gives_it_to():
    for layers in (1, 4, 7, 32, 80):
        for parts in range(1, layers + 1):
            for part in range(parts):
                first, last = cut_layers(layers, parts, part)
                assert {holding_stage(f"model.layers.{layer}.mlp", layers, parts) for layer in range(first, last)} == {part}


def test_a_cut_that_cannot_be_is_told_by_its_product():
    config = small()
    assert cut_problem(config, 2, 4, 9) is None
    assert "num_attention_heads 4 is 3 x 1 + 1" in str(cut_problem(config, 3, 1))
    assert "num_key_value_heads 2 is 4 x 0 + 2" in str(cut_problem(config, 4, 1))
    assert "the model has 4 layers" in str(cut_problem(config, 1, 5))
    fewest = min(len(held_shapes(parameter_shapes(config), config, 1, 4, stage)) for stage in range(4))
    assert cut_problem(config, 1, 4, fewest) is None
    assert f"a stage of the model has {fewest} parameters" in str(cut_problem(config, 1, 4, fewest + 1))


# Arithmetic


def test_pairs_of_queries_and_keys_by_hand():
    assert Row(6, 1.0, 1).seen_pairs(None) == 18
    # a prompt of 3 (4.5), and twice what a response of 2 behind it adds (12.5 - 4.5)
    assert Row(7, 4 / 7, 2).seen_pairs(None) == pytest.approx(4.5 + 2 * 8)
    # with a window of 2: 2 for the first two, then 2 each
    assert Row(7, 4 / 7, 2).seen_pairs(2) == pytest.approx(4 + 2 * (8 - 4))
    assert Row(4096, 1.0, 1).seen_pairs(4096) == 4096**2 / 2


def test_pairs_are_those_that_the_batch_lets_see():
    prompt, response = np.zeros(300, "int32"), Response(np.zeros(200, "int32"), np.ones(200, bool))
    batch = make_batch([Example(prompt, (response, response))], [[0]], 0)
    until = batch.visible_until[0, 0, :, 0]
    seen = sum(int(until[key]) - key for key in range(700))
    assert Row(700, 400 / 700, 2).seen_pairs(None) == pytest.approx(seen, rel=0.005)


def test_operations_of_a_small_model_by_hand():
    config, row = small(), Row(6, 0.5, 1)
    weights = 2 * 64 + 2 * 32 + 3 * 128
    assert layer_weights(config) == weights
    assert layers_forward(config, row, 1, 3) == 2 * (2 * weights * 6 + 4 * 8 * 18)
    assert head_forward(config, row) == 2 * 80 * 3
    forward, head = 4 * (2 * weights * 6 + 4 * 8 * 18), 2 * 80 * 3
    assert model_flops(config, row) == 3 * (forward + head)
    # on one device: backward twice forward; of the last layer's output projection and MLP the three scored tokens alone
    job, read = job_of(config, row), forward - 2 * (64 + 3 * 128) * 3.0
    assert stage_flops(job, replace(ALONE, rows=2), 0, 4, True) == pytest.approx(2 * (3 * read + 3 * head))
    assert stage_flops(job, replace(ALONE, recompute=True), 0, 4, True) == 4 * read + 3 * head
    assert stage_flops(job, replace(ALONE, sequence_parallel=True), 0, 4, True) == 3 * forward + 3 * head
    # logits of more than one chunk are computed twice but for one chunk
    many = 1 << 22
    share = (1 << 25) / (many * 3 * 10)
    assert stage_flops(job, replace(ALONE, rows=many), 0, 4, True) == pytest.approx(many * (3 * read + (4 - share) * head))
    assert stage_flops(job, replace(ALONE, tensor=2, pipeline=2), 0, 2, False) == 3 * forward / 2 / 2
    frozen = replace(job, reference=config)
    assert stage_flops(frozen, ALONE, 0, 4, True) == 4 * read + 4 * head


@pytest.mark.parametrize("name", MODELS)
def test_the_operations_of_llama2_are_those_of_the_known_formula(name: str):
    """6 N T and 6 x layers x hidden x T^2 for causal attention; an embedding is looked up, not multiplied, and norms are left out."""
    config, tokens = llama2(name), 4096
    attention = 6 * config.num_layers * config.hidden_size * tokens**2
    found = model_flops(config, Row(tokens, 1.0, 1))
    multiplied = COUNTS[name] - 32000 * config.hidden_size - (2 * config.num_layers + 1) * config.hidden_size
    assert found == pytest.approx(6 * multiplied * tokens + attention, rel=1e-12)
    assert found == pytest.approx(6 * COUNTS[name] * tokens + attention, rel=0.02)


# Traffic


def test_the_costs_of_a_ring():
    assert (all_reduce(80, 4), gather(80, 4), relay(80, 4)) == (120, 60, 80)
    assert (all_reduce(80, 1), gather(80, 1), relay(80, 1)) == (0, 0, 0)


def traffic_of(layout: Layout, stage: int = 0, per_node: int = 8, **keys) -> dict[str, tuple[float, int]]:
    config = small()
    job = job_of(config, Row(6, 0.5, 1), **keys)
    kept = hold(config, layout, stage) if job.reference else None
    found = step_traffic(job, layout, stage, hold(config, layout, stage), kept, per_node)
    return {it.kind: (it.sent, it.links) for it in found}


def test_the_traffic_of_tensor_parallelism():
    """12 tokens of 8 x 2 bytes are 192; on the one stage the embedding once, each of four layers two forward and two backward."""
    layout = replace(ALONE, tensor=2, rows=2, micro_batches=3)
    scored = 2 * 3 * (8 * 2 + 12)
    assert traffic_of(layout) == {"tensor: hidden states": (3 * 17 * 192, 0), "tensor: head": (3 * scored, 0)}
    assert traffic_of(replace(layout, sequence_parallel=True)) == traffic_of(layout)
    assert traffic_of(replace(layout, recompute=True))["tensor: hidden states"] == (3 * 25 * 192, 0)
    frozen = traffic_of(layout, reference=small())
    assert frozen == {"tensor: hidden states": (3 * 26 * 192, 0), "tensor: head": (3 * 2 * 3 * (8 * 2 + 24), 0)}
    # of three machines of one device each, the ring has one link from each
    assert traffic_of(layout, per_node=1)["tensor: head"] == (3 * scored, 1)


def test_the_traffic_of_a_pipeline():
    layout = replace(ALONE, pipeline=4, rows=2, micro_batches=3)
    sent = [traffic_of(layout, stage)["pipeline: hidden states"][0] for stage in range(4)]
    assert sent == [3 * 192, 3 * 2 * 192, 3 * 2 * 192, 3 * 192]
    frozen = [traffic_of(layout, stage, reference=small())["pipeline: hidden states"][0] for stage in range(4)]
    assert frozen == [3 * 2 * 192, 3 * 3 * 192, 3 * 3 * 192, 3 * 192]
    cut = traffic_of(replace(layout, tensor=2, sequence_parallel=True), 1)["pipeline: hidden states"]
    assert cut == (3 * 192, 0)
    # two machines of four: some neighbours are in different ones
    assert traffic_of(replace(layout, tensor=2), 1, per_node=2)["pipeline: hidden states"][1] == 1


def test_the_traffic_of_data_parallelism_and_sharding():
    layout = replace(ALONE, data=4, rows=2, micro_batches=3)
    layer = 2 * 64 + 2 * 32 + 3 * 128 + 16
    count = 4 * layer + 168
    assert traffic_of(layout) == {"data: gradients, all-reduce": (1.5 * 4 * count, 0)}
    assert traffic_of(layout, per_node=2)["data: gradients, all-reduce"] == (1.5 * 4 * count, 2)
    one = traffic_of(replace(layout, sharding=1, shards=4))
    assert one == {"data: gradients, all-reduce": (1.5 * 4 * count, 0), "data: new weights to all": (2 * count, 0)}
    two = traffic_of(replace(layout, sharding=2, shards=4))
    assert two == {"data: gradients to owners": (3 * 4 * count, 0), "data: new weights to all": (2 * count, 0)}
    three = traffic_of(replace(layout, sharding=3, shards=4, recompute=True))
    assert three == {
        "data: gradients to owners": (3 * 4 * count, 0),
        "data: layers' weights to all": (2 * (3 * 6 + 1) * layer, 0),
        "data: new weights to all": (2 * 168, 0),
    }
    pairs = replace(layout, sharding=2, shards=2)
    owned = hold(small(), pairs, 0).owned
    assert traffic_of(pairs, per_node=2) == {
        "data: gradients to owners": (3 * 4 * count, 0),
        "data: gradients of replicas": (4 * owned, 2),
        "data: new weights to all": (2 * count, 0),
    }


# Memory


def test_what_a_layer_keeps_by_hand():
    """Per token: input and attended 8 each, two norms' outputs 8 each, q and out 8 each, k and v 4 each, three of 16; in 2 bytes."""
    job = job_of(small(), Row(6, 1.0, 1))
    assert layer_bytes(small(), job, ALONE) == 2 * (4 * 8 + 2 * 8 + 2 * 4 + 3 * 16) + 8 + 4 * 4
    half = replace(ALONE, tensor=2)
    assert layer_bytes(small(), job, half) == 2 * (4 * 8 + (2 * 8 + 2 * 4 + 3 * 16) / 2) + 8 + 4 * 2
    assert layer_bytes(small(), job, replace(half, sequence_parallel=True)) == 2 * (8 + 2 * 8 + 36) + 16
    # O1: a float32 stream, and a cast for each of q, k, v, gate and up
    assert layer_bytes(small(), replace(job, level="O1"), ALONE) == 4 * 2 * 8 + 2 * (5 * 8 + 2 * 8 + 2 * 4 + 3 * 16) + 24
    on_cpu = replace(job, dtype="float32", level="O1", on_cpu=True)
    assert layer_bytes(small(), on_cpu, ALONE) == 4 * (4 * 8 + 2 * 8 + 2 * 4 + 3 * 16) + 8 + 4 * 4
    # with recompute a layer's input; on a last stage the last norm's input and output, on another what it sent; cosines and sines
    again = replace(ALONE, recompute=True, pipeline=2)
    assert [stage_bytes(small(), job, again, stage, 2) for stage in (0, 1)] == [2 * 16 + 16 + 16, 2 * 16 + 32 + 16]


def test_what_a_last_stage_keeps_where_the_head_looks_by_hand():
    """Of others nothing behind the last layer's attention: attended 8, a norm's output 8, three of 16, and the last norm's two of 8."""
    job, parallel = job_of(small(), Row(6, 1.0, 1)), replace(small(), parallel_residual=True)
    assert unmet_bytes(small(), job, ALONE) == 2 * (4 * 8 + 3 * 16) + 4
    assert unmet_bytes(small(), job, replace(ALONE, tensor=2)) == 2 * (4 * 8 + 3 * 16 / 2) + 4
    assert unmet_bytes(small(), replace(job, level="O1"), ALONE) == 4 * 3 * 8 + 2 * (2 * 8 + 3 * 16) + 4  # a cast for gate and up each
    assert unmet_bytes(parallel, job, ALONE) == 2 * (3 * 8 + 3 * 16) + 4
    assert unmet_bytes(small(), job, replace(ALONE, recompute=True)) == 2 * 2 * 8
    assert (met_bytes(small(), job, ALONE), met_bytes(small(), job, replace(ALONE, tensor=2))) == (16, 8)
    assert (met_bytes(parallel, job, ALONE), met_bytes(small(), job, replace(ALONE, recompute=True))) == (32, 0)
    cut = replace(ALONE, tensor=2, sequence_parallel=True)
    assert met_bytes(small(), job, cut) == 16
    kept = [stage_memory(job, cut, 0, hold(small(), cut, 0), None, 600, count).activations for count in (6, 600)]
    assert kept[1] - kept[0] == 594 * 16  # cut positions are all computed


def test_the_moments_of_half_precision_by_hand():
    config = small()
    job = job_of(config, Row(6, 1.0, 1))
    whole = hold(config, ALONE, 0)
    layer = layer_bytes(config, job, ALONE) * 6
    work = 3 * max(16 * 2, 8 * 4) * 6
    one = stage_memory(job, ALONE, 0, whole, None, 6, 6)
    assert (one.weights, one.optimizer, one.reference) == (2 * whole.total, 12 * whole.total, 0)
    # so few tokens: gradients weigh most, in the update, with the square of the largest
    assert (one.moment, one.gradients, one.activations) == (MOMENTS[-1], 4 * (whole.total + 128), 0)
    # with two micro-batches those of the second come on top of the sums
    two = stage_memory(job, replace(ALONE, micro_batches=2), 0, whole, whole, 6, 6)
    assert two.moment == "in the first layer's backward of a later micro-batch"
    assert two.gradients == 4 * whole.total + 2 * whole.total + 2 * 80
    assert two.activations == layer + work and two.reference == 2 * whole.total
    wide = stage_memory(replace(job, reference_bytes=4), replace(ALONE, micro_batches=2), 0, whole, whole, 6, 6)
    assert replace(wide, reference=two.reference) == two and wide.reference == 4 * whole.total


def test_where_the_head_is_the_highest():
    """600 targets of 1000 logits: those and their slope in float32, or the slope and what becomes the weights' gradient.

    In float32 the slope takes the place of the logits, and the gradient is added up where it lies.
    """
    config = small(vocab_size=1000)
    job, whole = job_of(config, Row(600, 1.0, 1)), hold(config, ALONE, 0)
    logits = head_bytes(config, job, whole, 600)
    assert logits == 8 * 600_000 + 4 * 8000
    assert head_bytes(config, replace(job, level="O1"), whole, 600) == logits + 2 * 8000
    assert head_bytes(config, replace(job, dtype="float32"), whole, 600) == 4 * 600_000 + 4 * 8000
    tied = replace(config, tie_embeddings=True)
    assert head_bytes(tied, replace(job, config=tied, dtype="float32"), whole, 1) == 8 * 8000  # the gradient, and turned round
    assert head_bytes(config, job, whole, 1e9) == 8 * 33_554_000 + 4 * 8000  # a chunk holds at most 2^25, in whole rows
    kept = stage_bytes(config, job, ALONE, 0, 4) * 600 + 600 * 8 * 2
    first = stage_memory(job, ALONE, 0, whole, None, 600, 600)
    assert (first.moment, first.gradients, first.activations, first.head) == (MOMENTS[0], 0, kept, logits)
    later = stage_memory(job, replace(ALONE, micro_batches=2), 0, whole, None, 600, 600)
    assert (later.moment, later.gradients, later.activations, later.head) == (MOMENTS[3], 4 * whole.total, kept, logits)


def test_the_memory_of_sharding_by_hand():
    config = small()
    job = job_of(config, Row(6, 1.0, 1))

    def at(stage: int) -> Memory:
        layout = replace(ALONE, data=4, sharding=stage, shards=4 if stage else 1, micro_batches=2)
        return stage_memory(job, layout, 0, hold(config, layout, 0), None, 1, 1)

    whole, owned = hold(config, ALONE, 0), hold(config, replace(ALONE, data=4, sharding=1, shards=4), 0)
    assert [at(stage).optimizer for stage in range(4)] == [12 * whole.total, *[12 * owned.owned] * 3]
    assert [at(stage).weights for stage in range(3)] == [2 * whole.total] * 3
    assert at(3).weights == 2 * (owned.owned_layers + whole.whole + whole.layer)
    assert at(1).gradients == at(0).gradients
    assert at(2).gradients == 4 * owned.owned + 2 * whole.total + 160
    assert at(3).gradients == 4 * owned.owned + 2 * (whole.whole + whole.layer) + 160
    job = replace(job, dtype="float32", level="O1")  # here what the owner has of them is what it computes
    assert at(0).gradients == at(1).gradients == 4 * whole.total
    assert at(2).gradients == pytest.approx(4 * whole.total + 320)
    others = (whole.whole + whole.layer) * (1 - owned.owned / whole.total)
    assert at(3).gradients == pytest.approx(4 * owned.owned + 4 * others + 320)


def test_a_stage_of_a_pipeline_keeps_as_many_micro_batches_as_are_under_way():
    config = small(vocab_size=1000, num_hidden_layers=12)
    job = job_of(config, Row(600, 1.0, 1))
    work = 3 * 32 * 600
    for count, under_way in ((8, (3, 2, 1)), (2, (2, 2, 1)), (1, (1, 1, 1))):
        for stage in range(3):
            layout = replace(ALONE, pipeline=3, micro_batches=count)
            memory = stage_memory(job, layout, stage, hold(config, layout, stage), None, 600, 600)
            of_one = stage_bytes(config, job, layout, stage, 4) * 600
            if stage == 2:  # highest in the head's backward
                assert memory.activations == of_one + 600 * 16
            else:  # in the last layer's
                # with as many micro-batches as fit, none has given gradients before the first backward
                assert memory.activations == under_way[stage] * of_one + work, (count, stage)
                assert (memory.gradients > 0) == (count > under_way[stage])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_planned_memory_is_what_paddle_allocates(recompute: bool, micro_batches: int):
    """A real step, its highest moment by Paddle's own count of tensors on the CPU."""
    shape = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 352, "vocab_size": 1024}
    config = parse_config({"model_type": "llama", **shape}, "here")
    core = paddle.base.core
    gc.collect()  # what earlier tests left would be freed in between
    before = core.host_memory_stat_current_value("Allocated", 0)
    policy = Decoder(config)
    for parameter in policy.parameters():
        parameter.set_value(paddle.normal(0.0, 0.02, parameter.shape))
    optimizer = optimizer_of(policy)
    prompt, response = np.zeros(64, "int32"), Response(np.zeros(192, "int32"), np.ones(192, bool))
    batch = make_batch([Example(prompt, (response,))] * 2, [[0], [1]], 0)
    for _ in range(2):
        core.host_memory_stat_reset_peak_value("Allocated", 0)
        accumulate_gradients(policy, [batch] * micro_batches, sft_objective(), FLOAT32, recompute)
        apply_gradients(policy, optimizer, FLOAT32, 1e-4, 1.0)
    measured = core.host_memory_stat_peak_value("Allocated", 0) - before
    row = Row(256, 0.75, 1)
    job = Job(config, None, "float32", "O1", row, row, on_cpu=True)
    layout = replace(ALONE, recompute=recompute, rows=2, micro_batches=micro_batches)
    planned = stage_memory(job, layout, 0, hold(config, layout, 0), None, batch.input_ids.size, len(batch.target_ids))
    # Paddle does not count what NumPy holds: attention's masks, which are planned, and the scores of its threads, which are not.
    assert measured == pytest.approx(planned.total, rel=0.04)


# A step, and the search


def test_the_time_of_a_step_by_hand():
    config, row = small(), Row(6, 0.5, 1)
    layout = replace(ALONE, pipeline=2, data=2, rows=2, micro_batches=3)
    plan = plan_step(job_of(config, row), layout, FIGURES, {})
    slowest = max(stage_flops(job_of(config, row), layout, *stage) for stage in ((0, 2, False), (2, 4, True)))
    link = 192 / 100e9  # hidden states that the last stage sends back
    assert layout.bubble == 1 / 4
    assert plan.compute_seconds == pytest.approx(3 * slowest / 50e12)
    assert plan.bubble_seconds == pytest.approx(slowest / 50e12 + link)
    both = [hold(config, layout, stage).total for stage in (0, 1)]
    assert plan.traffic_seconds == pytest.approx(3 * link + 4 * max(both) / 100e9)
    assert plan.seconds == pytest.approx(plan.compute_seconds + plan.bubble_seconds + plan.traffic_seconds)
    assert plan.useful_flops == model_flops(config, row) * 12
    assert plan.utilization(FIGURES) == pytest.approx(plan.useful_flops / (plan.seconds * 4 * 100e12))
    crossing = plan_step(job_of(config, row), layout, replace(FIGURES, per_node=2), {})
    assert [seconds_of(it, FIGURES) * 1e10 for it in crossing.traffic if it.links] == [pytest.approx(4 * both[0])]  # of the slowest stage


def test_layouts_take_the_same_rows_on_all_devices():
    found = list(layouts([llama2("70B")], 16, 8, 48, 4))
    assert len(found) == len(set(found)) > 100
    for layout in found:
        assert layout.devices == 16 and layout.tensor <= 8 and layout.rows <= 4
        assert layout.rows * layout.micro_batches * layout.data == 48
        assert layout.data % layout.shards == 0 and (layout.sharding == 0) == (layout.shards == 1)
    assert {layout.tensor for layout in found} == {1, 2, 4, 8} and {layout.pipeline for layout in found} == {1, 2, 4, 8, 16}
    assert not list(layouts([small()], 7, 8, 5, 4))


def search_7b(memory_gib: float, devices: int = 8) -> tuple[tuple[Plan, ...], Plan]:
    row = Row(2048, 1.0, 1)
    found = search(job_of(llama2("7B"), row), devices, replace(FIGURES, memory_gib=memory_gib), 64, 4)
    assert found.least is not None
    return found.best, found.least


def test_with_all_the_memory_in_the_world_nothing_is_cut():
    best, _ = search_7b(10_000)
    assert (best[0].layout.tensor, best[0].layout.pipeline, best[0].layout.sharding) == (1, 1, 0)
    assert not best[0].layout.recompute
    assert [plan.seconds for plan in best] == sorted(plan.seconds for plan in best)


def test_less_memory_takes_more_cutting_and_too_little_takes_none():
    previous = 0.0
    for memory in (200, 80, 40, 24):
        best, least = search_7b(memory)
        assert best and all(plan.memory.total <= (memory - 8) * GIB for plan in best)
        assert best[0].seconds >= previous
        previous = best[0].seconds
        kinds = [(it.layout.tensor, it.layout.pipeline, it.layout.data, it.layout.sharding) for it in best]
        assert len(kinds) == len(set(kinds))
    best, least = search_7b(9)
    assert not best and least.memory.total > GIB


def test_what_is_tried_first_is_told_though_it_does_not_fit():
    row = Row(2048, 1.0, 1)
    found = search(job_of(llama2("70B"), row), 8, FIGURES, 64, 4)
    simple = dict(found.simple)
    assert not found.best and found.tried > 50
    alone = simple["data parallel alone"]
    assert alone is not None and not alone.fits and alone.memory.total > 18 * COUNTS["70B"]
    assert all(plan is not None for plan in simple.values())
    odd = search(job_of(llama2("13B"), row), 64, FIGURES, 64, 4)
    assert dict(odd.simple)["pipeline parallel 64 alone"] is None  # 40 layers


def test_the_line_of_a_check_is_the_same_count(tmp_path: Path, capsys: pytest.CaptureFixture):
    """``--check`` tells what the plan's functions give for the batch at hand: here 2 rows of the sample, in one micro-batch."""
    rows = write_rows(tmp_path / "rows.json", "sft", "train", 0, 2)
    words = ["--model_name_or_path", ROOT / "data" / "base_model", "--train_dataset_path", rows, "--output_dir", tmp_path / "out"]
    keys = ["--do_train", "true", "--check", "true", "--per_device_train_batch_size", "2", "--device", "cpu"]
    assert main("sft", [*map(str, words), *keys]) == 0
    said = capsys.readouterr().out
    positions = int(re.findall(r"first step's ([\d,]+) positions", said)[0].replace(",", ""))
    targets = int(re.findall(r"tokens, ([\d,]+) of them scored", said)[0].replace(",", ""))
    config, row = read_config(ROOT / "data" / "base_model"), Row(1, 1, 1)
    job = Job(config, None, "float32", "O1", row, row, on_cpu=True)
    planned = stage_memory(job, ALONE, 0, hold(config, ALONE, 0), None, positions, targets)
    parts = " + ".join(f"{name} {value / 1e9:.2f}" for name, value in planned.parts().items() if value)
    assert f"memory, estimated: {planned.total / 1e9:.2f} GB = {parts}, {planned.moment} (" in said
