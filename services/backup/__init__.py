"""Backups of Postgres and Redis: kept by a scheduler, and restored by hand.

It stands in an image without the packages of the services, on the standard library and on the
programs of PostgreSQL, Barman and Redis.
"""
