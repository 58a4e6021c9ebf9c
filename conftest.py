"""Lets pytest find the harness's options and fixtures when it runs in this repository."""

pytest_plugins = ["harness.plugin", "harness.fixtures"]
