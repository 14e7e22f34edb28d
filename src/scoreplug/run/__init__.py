"""A run: config -> plan -> chunks -> executor -> store -> report.

`config` says what is to be done and imports no torch; `runner.run` does it and leaves a run directory behind.
"""
