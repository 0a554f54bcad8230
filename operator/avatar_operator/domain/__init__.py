"""The decisions, pure: plain data in, plain data out, the time passed in, no I/O."""
