"""Plans against brute force, simulations and real runs."""
