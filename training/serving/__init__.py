"""`har-serve`: a page and an HTTP API for videos."""

from .serve import serve_run

__all__ = ["serve_run"]
