"""The soak: jobs, people and faults at random on a private Slurm, judged by what tasks recorded."""
