"""`python -m scoreplug` is the command of this very interpreter."""

from scoreplug.cli import main

main(prog_name="scoreplug")
