"""The equations: energies, objectives, losses, and the one gradient loop."""
