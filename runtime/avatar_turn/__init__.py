"""Starts coturn as a relay between clients and the pods of avatars; all it reads is its environment."""
