"""The only room that speaks RPyC: the agent, the link to one terminal, the session upon it."""
