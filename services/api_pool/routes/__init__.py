"""Thin routes: they read the request, call a use case, and write its answer."""
