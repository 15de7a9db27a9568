"""What a training step costs, without doing it: passes, operations, memory, and what must be there before."""
