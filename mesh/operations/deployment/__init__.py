"""Output for other systems that run a mesh: Kafka access rights, Kubernetes manifests."""
