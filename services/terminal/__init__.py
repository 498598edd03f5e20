"""The image of real terminals: what supervises them, and what runs in Wine beside each."""
