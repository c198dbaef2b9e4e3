"""ONNX files: our operator in them, reading with distrust, writing whole files or none.

The only place that imports onnx. ``driver`` joins it with PyTorch's exporter on one side and with
TVM on the other.
"""
