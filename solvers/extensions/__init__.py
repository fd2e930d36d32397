"""Foreign solvers, each imported when asked for; every one declares what it requires."""
