"""`python -m slipway_server fetch|serve`: see cli.py."""

from slipway_server.cli import main

if __name__ == "__main__":
    main()
