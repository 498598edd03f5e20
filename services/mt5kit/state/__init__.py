"""The only room that speaks Redis and Postgres."""
