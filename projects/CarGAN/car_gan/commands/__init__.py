"""The verbs of cars.py: each module has add_arguments(parser) and run(args)."""
