"""`kubectl slipway`: rollouts seen and steered by hand. It reads and writes ModelDeployments and nothing else."""
