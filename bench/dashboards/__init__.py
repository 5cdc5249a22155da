"""Pictures of the dashboards: their own queries, asked of a real Prometheus that watched a stack under load."""
