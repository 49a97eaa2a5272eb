"""What the commands do alike: read the arguments, run the recipe, and end politely."""

import importlib
import os
import sys
from collections.abc import Sequence

from paddlealign.arguments.parsing import Command, parse
from paddlealign.arguments.paths import check_paths
from paddlealign.errors import UserError
from paddlealign.machine import prepare
from paddlealign.versions import check_versions


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code: 0, 1 after a user's error, 130 after Ctrl-C, 141 where nobody reads on (``| head``)."""
    try:
        code = _run(command, sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(command: Command, argv: Sequence[str]) -> int:
    """Run a command; errors that a user can mend become one message.

    The recipe is imported after the arguments are known to be good, so that ``--help`` and mistakes do not wait for Paddle.
    """
    try:
        warning = check_versions()
        arguments = parse(command, argv)
        check_paths(arguments)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        print(prepare(), flush=True)
        recipe = importlib.import_module(f"paddlealign.recipes.{command}")
        recipe.run(arguments)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped()
    except (OSError, ImportError, SystemError) as error:
        # Paddle wraps an interrupt that comes in the middle of its own work.
        if "KeyboardInterrupt" not in str(error) and not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        return _stopped()


def _stopped() -> int:
    print("\nstopped by the keyboard; a training run goes on from its last checkpoint with --resume_from_checkpoint true", file=sys.stderr)
    return 130
