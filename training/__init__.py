"""Training, evaluation, prediction and reports.

Read `config`, `step`, `state`, `setup`, `loop` first: they are the training of all models.
What they use lies in `input` (batches on the device), `optim` and `runtime`.

Before torch is loaded, OpenMP's threads are told to spin for a moment only while they wait. On two
cores shared with other busy processes, endless spinning made a training step 7-10 times slower; not
spinning at all made it 1.3 times slower on idle ones (docs/benchmarks.md).
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
