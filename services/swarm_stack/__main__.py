"""`python -m swarm_stack`: what `make deploy`, `make status` and the others call."""

from swarm_stack.cli import app

if __name__ == "__main__":
    app(prog_name="swarm_stack")
