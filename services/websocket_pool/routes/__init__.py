"""The pool's routes; nothing but these and `app` knows FastAPI."""
