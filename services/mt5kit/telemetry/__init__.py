"""Logging, every metric object, HTTP middleware and health."""
