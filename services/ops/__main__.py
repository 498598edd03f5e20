"""`python -m ops`: see `cli`."""

from ops.cli import app

if __name__ == "__main__":
    app()
