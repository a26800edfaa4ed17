"""Servers of models that others wrote: launched on a node or on those of a Slurm allocation, asked, and ended with all they started."""
