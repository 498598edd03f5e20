"""Frozen values of the trade: accounts, positions, orders, deals, broker time. No I/O."""
