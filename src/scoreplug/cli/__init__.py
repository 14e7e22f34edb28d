"""The command line: one file per verb, each imported when it is called."""

from scoreplug.cli._main import main as main
