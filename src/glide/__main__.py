"""``python -m glide``, and the installed ``glide``."""

import gc
import os
import sys

# Nothing else up here: until `main` runs, Ctrl-C would be answered by a traceback.


def main() -> None:
    """Run the command line; never returns, never shows a traceback."""
    # Looking for garbage while modules load finds none, and takes a tenth of the time; see cli.run.
    gc.disable()
    try:
        from glide.cli.main import run

        run()
    except SystemExit as ended:
        _end(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
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


def _end(code: int) -> None:
    """End the process at once. What is left to tear down is memory, which takes longer than sending a small file."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more
    os._exit(code)


if __name__ == "__main__":
    main()
