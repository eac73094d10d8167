"""`python -m metamed` is the command `metamed`."""

from metamed.cli import main

main()
