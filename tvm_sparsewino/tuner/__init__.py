"""Measure the planner's candidates and keep what is fastest, on this machine or over TVM's RPC.

candidates.py   the plans that the cost model ranks, and the steps from one to its neighbours
measure.py      build kernels and time them on this machine
remote.py       the same on a machine that TVM's RPC tracker lends
search.py       the search for the fastest plan of one layer
network.py      all layers of a network, into a file of records
version.py      which kernels a record holds for
"""
