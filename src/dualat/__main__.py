"""`python -m dualat` is the `dualat` command."""

from dualat.cli.main import main

main()
