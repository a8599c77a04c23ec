"""The blackboard: rules that all stores share, and its changelog."""
