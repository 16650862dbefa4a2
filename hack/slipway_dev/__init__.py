"""What `hack/` runs: a cluster, its binaries, its images and a Python environment. Standard library only."""
