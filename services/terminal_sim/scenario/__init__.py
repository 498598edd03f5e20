"""Scenario files: what brokers, accounts and faults a simulation begins with."""
