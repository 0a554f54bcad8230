"""A real one-node Kubernetes for development, the demo and the tests (standard library only).

``python3 -m devcluster up`` builds (or finds in its cache) every program of a
cluster, starts it and prints the kubeconfig. See README.md in this folder.
"""
