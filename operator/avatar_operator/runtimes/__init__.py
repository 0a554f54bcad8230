"""HTTP to lip-sync runtimes, as the operator's probe and the REST API both speak it."""
