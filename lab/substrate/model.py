def prepare() -> str | None:
    return None
