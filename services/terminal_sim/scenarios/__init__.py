"""Ready scenario files, shipped as package data."""
