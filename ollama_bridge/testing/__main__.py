"""`python -m ollama_bridge.testing`: the simulator without Django."""

import sys

from . import cli


def main() -> None:
    """Run the simulator; exit code 2 where it cannot listen."""
    parser = cli.parser()
    try:
        cli.run(vars(parser.parse_args()), sys.stdout, sys.stderr)
    except cli.CannotListenError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
