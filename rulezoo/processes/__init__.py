"""Child processes for foreign code: started, watched and ended from here; they know nothing of rules and runs."""
