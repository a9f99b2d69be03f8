"""Finding rules and tasks: plugins, the registry of what they offer, and what their code says."""
