"""What the user says: the keys of each command, read from a JSON file and the command line. Neither Paddle nor PaddleNLP is imported."""

from paddlealign.arguments.parsing import parse
from paddlealign.arguments.results import Arguments, DpoArguments, PredictArguments, SftArguments

__all__ = ["Arguments", "DpoArguments", "PredictArguments", "SftArguments", "parse"]
