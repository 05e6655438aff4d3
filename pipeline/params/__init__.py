"""The parameters file: read strictly, explained key by key, started from presets.

A stage reads its own section with ``loading.load_section``; ``schema.load_params`` reads all of them and checks the
rules between them. The settings themselves stand in the rooms that they configure.
"""
