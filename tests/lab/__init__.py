"""Tests of the whole lab."""

ONE_OF_EACH = ("edge-gw1", "hq-app1", "hq-db1", "hq-gw1")
"""Hosts of the lab on which every role is: what check mode has to say it says there."""
ONE_OF_EACH_LIMIT = f"--limit=localhost,{','.join(ONE_OF_EACH)}"
