"""What people and programs see of simulations: pages, JSON, streams. Reads rows, never touches the loop."""
