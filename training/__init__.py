"""Training, evaluation, prediction and reports.

Odd: before torch is loaded, OpenMP is told not to spin while its threads wait. On two cores shared
with one other busy process, spinning made a training step 7-10 times slower (docs/benchmarks.md).
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")
