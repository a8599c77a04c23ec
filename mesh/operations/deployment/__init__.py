"""What other systems need to run a mesh: Kafka's access rights, Kubernetes manifests."""
