"""Print a metric."""

import sys

print(f'ledger_books{{name="{sys.argv[1]}"}} 1')
