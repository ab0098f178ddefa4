"""The keyed hash by which hosts recognise keys that they do not hold."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.hmac_hash import FilterModule, hmac_hash

# RFC 4231, test case 2.
TEXT, SECRET = "what do ya want for nothing?", "Jefe"
SHA256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_it_is_the_hmac_of_rfc_4231() -> None:
    assert hmac_hash(TEXT, SECRET, encoding="hex") == SHA256
    assert hmac_hash(TEXT, SECRET) == "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="
    assert hmac_hash(TEXT, SECRET, "sha512", "hex").startswith("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554")


def test_texts_that_are_not_ascii_are_hashed_as_utf_8() -> None:
    assert hmac_hash("schlüssel", SECRET) != hmac_hash("schlussel", SECRET)


@pytest.mark.parametrize(("arguments", "complaint"), [(("",), "empty"), ((SECRET, "md5"), "md5"), ((SECRET, "sha256", "octal"), "octal")])
def test_what_would_be_weak_or_is_unknown_is_refused(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(AnsibleFilterError, match=complaint):
        hmac_hash(TEXT, *arguments)


def test_ansible_finds_it() -> None:
    assert FilterModule().filters() == {"hmac_hash": hmac_hash}
