"""Print half, and fail."""

import os

print("ledger_half_read 1", flush=True)
print(os.environ["LEDGER_THAT_NOBODY_HAS_SET"])
