"""Lets pytest find the harness's options and fixtures when it runs in this repository."""

import os
import signal
from pathlib import Path

pytest_plugins = ["bootproof.harness.plugin", "bootproof.harness.fixtures"]

# Of every process that a test starts, whatever clone its virtual environment was made for.
os.environ["PYTHONPATH"] = str(Path(__file__).parent / "src")
# What one of them has compiled, the hundreds that follow need not compile again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell ignores SIGINT for what it starts in the background, nohup SIGHUP, and every process
# inherits that: the tests that interrupt a command would then wait for an end that never comes.
# A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)
