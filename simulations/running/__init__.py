"""What carries a simulation from the queue to its last event. Never imports simulations.showing."""
