"""The Kubernetes API: a thin client, its errors, credentials and events."""
