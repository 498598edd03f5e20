"""Hand-written doubles of the outside world, shipped for whoever builds on us."""
