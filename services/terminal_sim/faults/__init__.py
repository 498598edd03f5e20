"""Faults by name: what can be broken on purpose, and what in the world breaks like that."""
