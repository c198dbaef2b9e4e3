"""The benchmark of single layers: our kernels and their peers, timed in turn, recorded, judged."""
