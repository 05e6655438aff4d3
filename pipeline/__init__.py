"""Everything reusable of the pipeline: parameters, data, training, export, runtimes, evaluation, packaging."""
