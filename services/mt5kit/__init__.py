"""What the pools share: domain values, errors, settings, vault, terminal link, state, telemetry."""

__version__ = "0.1.0"
