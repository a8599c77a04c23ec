"""topics.yaml: its language, the validated topology, its digest and its stored form."""
