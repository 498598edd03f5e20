"""Starts, watches, restarts and reports the terminals of one container.

Plain Python 3.9 and its standard library, because it runs on the Python of the image below ours.
"""
