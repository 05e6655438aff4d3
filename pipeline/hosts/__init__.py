"""Processes that train together, on one host or several: who starts them, who waits, who ends.

One host is the head: DVC runs the chain there, and there alone outputs are written. On the others ``fmkt join`` waits
for trainings. The hosts come to terms over a connection of their own (``channel``), then each starts its share of the
processes under torchrun's agent (``agent``), and watches the others until all are done.
"""
