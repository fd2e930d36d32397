"""deq-lab."""
