"""Everything reusable of the pipeline, in rooms; imports point from the later to the earlier of them.

core, data, networks, runtimes, tasks, training, export, distillation, package, evaluation, params, preflight,
comparison, serving: each says in its ``__init__`` what it is for.
"""
