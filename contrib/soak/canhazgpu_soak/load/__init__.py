"""Who starts jobs, runs, reservations and processes without any."""
