"""What each of our processes has, whatever its work: logs, and a page of metrics and health."""
