"""Training, evaluation, prediction and reports.

Odd: before torch is loaded, OpenMP's threads are told to spin for a moment only while they wait. On
two cores shared with other busy processes, spinning on made a training step 7-10 times slower; not
spinning at all made it 1.3 times slower on idle ones (docs/benchmarks.md).
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
