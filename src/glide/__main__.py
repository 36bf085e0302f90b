"""``python -m glide``, and the installed ``glide``."""

import os
import sys


def main() -> None:
    """Run the command line; never returns, never shows a traceback."""
    try:
        from glide.cli.main import run

        run()
    except KeyboardInterrupt:
        # While modules were loading, or between two steps: once a verb runs, it watches signals by itself.
        os._exit(130)
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        # Output that cannot be written, to a full disk for instance: there is nowhere left to complain but here.
        try:
            sys.stderr.write(f"glide: {error.strerror or error}\n")
        finally:
            os._exit(1)


if __name__ == "__main__":
    main()
