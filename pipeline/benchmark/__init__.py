"""`har-shards bench` and `har-bench-loader`: ratios to the usual ways, in one interleaved run."""

from ...errors import HarError


class BenchError(HarError):
    """A benchmark that cannot run; the text is one sentence."""
