"""Annotated street scenes of any origin as one kind of object."""
