"""What this processor has units for."""

import torch

# oneDNN without AVX-512 emulates bf16, tens of times slower than float32: a full network takes
# minutes a step. Other architectures are not known, so they count as without.
HAS_BF16_UNITS = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
