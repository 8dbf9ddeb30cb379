"""``python -m benchmarks``, in a checkout."""

import sys
import traceback


def run() -> int:
    """Run the command and return its exit code, also where it cannot even start."""
    try:
        from .cli import main  # noqa: PLC0415  # it needs what may not be installed
    except ImportError as error:
        remedy = "python -m pip install --editable . --group benchmarks"
        sys.stderr.write(f"Cannot start: {error}. Install what it needs: {remedy}\n")
        return 3
    try:
        return main()
    except Exception:  # noqa: BLE001  # shown whole; Python's own exit code is that of a missed goal
        traceback.print_exc()
        return 3


if __name__ == "__main__":
    sys.exit(run())
