"""`python -m tunebook` is the command `tunebook`."""

from tunebook.cli.main import main

main()
