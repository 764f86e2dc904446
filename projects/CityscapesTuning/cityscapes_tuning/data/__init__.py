"""The parts of a study's data set: Cityscapes by cities or any registered set, their masks, and how they are loaded."""
