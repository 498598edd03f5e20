"""A terminal's process: its session at a broker, and what it shares with its supervisor."""
