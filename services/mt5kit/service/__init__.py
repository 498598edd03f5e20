"""What the process of every pool shares: serving and draining, tasks, the registry's entry."""
