"""The commands that deploy and operate the Swarm stack."""
