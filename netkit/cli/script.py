"""The console script's first step: Ctrl-C while the commands are being loaded ends as it does later.

Imports nothing on top, so that the moment before it is as short as can be.
"""


def run() -> None:
    """Load the commands and run the one asked for."""
    try:
        from netkit.cli import main
    except KeyboardInterrupt:
        import sys

        print("netkit: interrupted", file=sys.stderr)
        sys.exit(130)
    main.run()
