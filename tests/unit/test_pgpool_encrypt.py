"""A password as Pgpool-II keeps it, against what its own pg_enc has printed."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.pgpool_encrypt import FilterModule, pgpool_encrypt


def test_it_is_what_pg_enc_prints() -> None:
    # pg_enc of 4.6.1, with this key in its key file.
    found = pgpool_encrypt("correct-horse-battery-staple", "a-key-of-more-than-twenty-characters")
    assert found == "Ep9dD22S88J6pID6gIkFJk9wwRAnzhIgCi9ElF0E9SA="


def test_without_a_key_there_is_no_encryption() -> None:
    with pytest.raises(AnsibleFilterError, match="key is empty"):
        pgpool_encrypt("correct-horse-battery-staple", "")


def test_ansible_finds_it() -> None:
    assert FilterModule().filters() == {"pgpool_encrypt": pgpool_encrypt}
