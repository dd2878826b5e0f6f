"""A run: its recipe and folder, training, resume, and its trained network with features."""
