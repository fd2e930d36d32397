"""One step a file; ``revision`` is the schema version that it makes."""
