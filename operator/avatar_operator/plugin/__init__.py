"""`kubectl avatar`: avatars from the command line, by the Kubernetes API alone."""
