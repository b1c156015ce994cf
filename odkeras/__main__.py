"""`python -m odkeras`: the same as the `odkeras` command."""

from odkeras.cli import main

if __name__ == "__main__":
    main()
