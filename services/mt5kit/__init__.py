"""What the pools share: domain values, errors, settings, vault, terminal link, state, telemetry."""
