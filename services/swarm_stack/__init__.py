"""What the Swarm stack is made of, and the commands that deploy it."""
