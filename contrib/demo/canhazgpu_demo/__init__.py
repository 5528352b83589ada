"""The demonstration: a private Slurm with simulated GPUs, shown and checked step by step."""
