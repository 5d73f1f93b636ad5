"""`python -m cli` is `kvnet`: for a checkout that is not installed."""

from cli.main import main

main()
