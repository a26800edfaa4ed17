"""A real Slurm with accounting on one Debian machine, for the tests and for trying: three nodes with fake GPUs.

Everything it needs (munge's key and socket, the database, device files, state, logs) is in one folder, its daemons listen on
the loopback interface only, and it neither uses nor disturbs a Slurm, munge or MariaDB that the machine already runs.
"""
