"""What a mistake looks like to the person who made it: one message, no traceback, exit code 2.

Anything else keeps its traceback: it is ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM

_MISTAKES = {
    "solvers.options": ("OptionError",),
    "db.errors": ("StoreError",),
    "experiments.runner.guard": ("ForeignPackageError",),
    "sacred.utils": ("ConfigError", "NamedConfigNotFoundError", "MissingConfigError"),
}


def mistake(error: BaseException) -> str | None:
    """Return the message if the error is the user's to put right, else None."""
    for module, names in _MISTAKES.items():
        # Who raised one of these has imported it; nobody else should wait for it.
        loaded = sys.modules.get(module)
        if loaded and isinstance(
            error, tuple(getattr(loaded, n) for n in names if hasattr(loaded, n))
        ):
            return str(error)
    return None


def guarded(function: Callable[[], int | None]) -> int:
    """Call ``function`` and return its exit code, or that of the mistake, which is printed."""
    try:
        return function() or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        message = mistake(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return USAGE_ERROR
