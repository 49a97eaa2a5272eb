"""``python -m scripts.benchmark.peak``: GFLOP/s of fp32 matmuls in Paddle, in a process set up as ours are."""

import time

from paddlealign.machine import prepare

SIZE, REPEATS = 1024, 30


def main() -> None:
    """Print the rate of the fastest of many products of square matrices."""
    prepare()
    import paddle

    left, right = paddle.randn([SIZE, SIZE]), paddle.randn([SIZE, SIZE])
    fastest = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        paddle.matmul(left, right)
        fastest = min(fastest, time.perf_counter() - began)
    print(2 * SIZE**3 / fastest / 1e9)


if __name__ == "__main__":
    main()
