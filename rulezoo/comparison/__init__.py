"""Rules × tasks × seeds: the plan, the jobs it is divided into, and its execution by an executor."""
