"""PaddleAlign: SFT, reward-model and DPO fine-tuning of LLaMA-family models on PaddlePaddle."""

__version__ = "0.1.0"
