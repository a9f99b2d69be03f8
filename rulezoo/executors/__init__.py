"""Where jobs are done: in processes of this machine, on a SLURM cluster, on a Ray cluster."""
