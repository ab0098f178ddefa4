# Ansible managed
"""Who may do what through the S3 API: each user owns an account of its own, and with it all the buckets in there.

Swift's tempauth without its tokens: they need a memcached, and nobody here speaks Swift's own API. An access key is the user's name alone. A user has
one secret key, or two while one takes the other's place; they are given as ``user_<name>_<number>``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swift.common.middleware.tempauth import TempAuth
from swift.common.swob import HTTPNotFound, str_to_wsgi


class S3Auth(TempAuth):
    """Signatures of S3, and nothing else."""

    def __init__(self, app: Any, conf: dict[str, str]) -> None:  # noqa: ANN401 - as Swift has it
        """Sort the secret keys by user."""
        super().__init__(app, conf)
        self.secrets: dict[str, list[str]] = {}
        for number, user in sorted(self.users.items()):
            self.secrets.setdefault(number.partition(":")[0], []).append(user["key"])

    def handle(self, env: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401 - as Swift has it
        """Give no tokens."""
        return HTTPNotFound()(env, start_response)

    def get_groups(self, env: dict[str, Any], token: str | None) -> str | None:
        """Give the groups of whoever has signed a request, or None; the first one owns the account."""
        details = env.get("s3api.auth_details")
        if not details:
            return None
        name = details["access_key"]
        if not any(details["check_signature"](secret) for secret in self.secrets.get(name, ())):
            return None
        account = f"{self.reseller_prefix}{name}"
        # s3api puts the access key in the account's place. Of several requests that it makes of one, only the first still has it there.
        path = env["PATH_INFO"].split("/", 3)
        if path[2:3] == [str_to_wsgi(name)]:
            path[2] = str_to_wsgi(account)
            env["PATH_INFO"] = "/".join(path)
        return f"{name},{name},{account}"


def filter_factory(global_conf: dict[str, str], **local_conf: str) -> Callable[[Any], S3Auth]:
    """Make the filter, as Paste asks for it."""
    return lambda app: S3Auth(app, {**global_conf, **local_conf})
