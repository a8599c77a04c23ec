"""Records of ingress topics: request formats and admission."""
