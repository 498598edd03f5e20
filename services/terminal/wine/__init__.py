"""What the Python in Wine runs: plain files, copied as they are."""
