"""The documentation site: which pages there are, and those that are made from the code (`make docs`)."""
