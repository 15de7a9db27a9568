"""`python -m dualat` is the `dualat` command."""

try:
    from dualat.cli.main import main
except KeyboardInterrupt:
    raise SystemExit("dualat: interrupted.") from None

main()
