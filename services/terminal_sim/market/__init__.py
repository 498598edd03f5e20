"""The market: prices, bars and clocks as one function of (seed, symbol, time)."""
