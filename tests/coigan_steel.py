"""The toy steel that most tests of COIGAN's data read."""

from coigan.data.prepare import PrepareOptions

OPTIONS = PrepareOptions(tile=64, workers=1, toy_count=16, toy_size=(96, 200))
