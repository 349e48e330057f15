"""Real daemons in network namespaces: topologies, peers, probes, scenes."""
