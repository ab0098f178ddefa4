"""Never come to an end, and start something that does not either."""

import subprocess

print("ledger_half 1", flush=True)
subprocess.run(["sleep", "4711"], check=False)
