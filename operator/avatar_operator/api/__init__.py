"""The REST API on port 8607: the old manager's routes, sessions in status, fit for the open internet."""
