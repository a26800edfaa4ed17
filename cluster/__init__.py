"""The cluster: Snakemake's profile, facts about the site and its GPUs, a check of the machine, and a Slurm to try on."""
