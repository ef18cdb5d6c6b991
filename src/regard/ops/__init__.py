"""Pure functions: tensors in, tensors out."""

import regard.ops.attention_blockwise  # noqa: F401  (registers torch.ops.regard.attend)
