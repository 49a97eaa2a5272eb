"""Messages that are the same in Chinese: names of keys beside their values."""

SAME = frozenset({
    "evaluation_strategy {evaluation_strategy}",
    "tensor_parallel_degree {tensor} x pipeline_parallel_degree {pipeline}",
})  # fmt: skip
