"""How the Python clients tell a suite what happened: one JSON line an event, an exit status at the end."""

import argparse
import json
import pathlib
import sys
import traceback

TEXTS = list(json.loads((pathlib.Path(__file__).parent / "texts.json").read_text("utf-8")).values())


def report(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def options(*names):
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(f"--{name}", required=True)
    return parser.parse_args()


def main(work):
    """Runs `work()`; a failure is the last line and status 1."""
    try:
        work()
    except BaseException as error:
        traceback.print_exc()
        report("failed", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
    report("done")
