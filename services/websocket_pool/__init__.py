"""The WebSocket pool: one poll an account, one numbered line of state, any number of sockets."""
