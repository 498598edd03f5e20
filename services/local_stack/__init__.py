"""`make run`: the whole product on one machine, with embedded servers and simulated terminals."""
