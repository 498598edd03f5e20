"""The supervisor: starts brokers and terminals, keeps them, and answers over HTTP."""
