"""How the shipped checkpoints were made. ``python -m netprior_core train NAME`` runs the module of that name again.

Each module has ``SUMMARY`` (one line), ``add_arguments(parser)`` and ``run(options)``.
"""
