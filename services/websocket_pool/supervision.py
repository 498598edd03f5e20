"""Moved to `mt5kit.service.supervision`."""

from mt5kit.service.supervision import keep_running

__all__ = ["keep_running"]
