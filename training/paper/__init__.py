"""`har-reproduce`: every table and figure of the paper on UCF101, and what that costs."""

from .plan import ReproduceError, ReproduceOptions
from .reproduce import reproduce_paper

__all__ = ["ReproduceError", "ReproduceOptions", "reproduce_paper"]
