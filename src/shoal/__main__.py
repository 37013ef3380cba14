"""The command `shoal`, also as ``python -m shoal``. Ctrl-C ends it without a traceback from its first line on."""

import faulthandler
import signal
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    faulthandler.enable()  # what an environment crashes in this process says where
    on_interrupt = signal.getsignal(signal.SIGINT)
    if on_interrupt is signal.default_int_handler:  # else it is ignored, as in the background of a shell
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from shoal.cli.main import main as run  # not at the top: it takes a tenth of a second, and nothing has begun

    signal.signal(signal.SIGINT, on_interrupt)
    return run()


if __name__ == "__main__":
    sys.exit(main())
