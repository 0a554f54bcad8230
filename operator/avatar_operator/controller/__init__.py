"""The running operator: watch, store, queue, executor and their wiring."""
