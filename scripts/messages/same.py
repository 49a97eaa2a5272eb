"""Messages that are the same in Chinese: names of keys beside their values."""

SAME = frozenset({
    "--logging_steps {every}",
    "tensor_parallel_degree {tensor} x pipeline_parallel_degree {pipeline}",
})  # fmt: skip
