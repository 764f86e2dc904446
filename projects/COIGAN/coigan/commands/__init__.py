"""One module for each verb of inpaint.py, with add_arguments(parser) and run(args)."""
