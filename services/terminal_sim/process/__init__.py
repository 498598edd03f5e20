"""What processes under a supervisor have in common: ties to it, and messages up and down a pipe."""
