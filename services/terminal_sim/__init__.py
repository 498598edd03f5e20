"""A simulated MetaTrader 5: RPyC terminals, a market, a broker's accounts and a supervisor.

Nothing here imports the rest of the project, so that the simulator cannot mirror its mistakes.
Start it with ``python -m terminal_sim serve``; see the README beside this file.
"""
