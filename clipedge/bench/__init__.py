"""How fast a bundle is on this machine: latency, throughput, memory, and on a Jetson power."""
