"""What an operator does by hand: `python -m ops --help`."""
