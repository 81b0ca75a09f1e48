"""Versions, by themselves so that every room can import them."""

__version__ = "0.1.0"


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that `diffgen --version` does not need

    try:
        return version(package)
    except PackageNotFoundError:
        return None
