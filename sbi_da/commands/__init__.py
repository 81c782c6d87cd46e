"""The commands of the command line, one a module: ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``.

The modules are imported to show any help: whatever a command runs on is imported inside its ``run``.
"""
