"""PyTorch side: Winograd-domain layers, conversion, native pruning, training, export."""
