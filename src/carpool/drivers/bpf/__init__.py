"""The C data plane and its loader: BPF objects without libbpf."""
