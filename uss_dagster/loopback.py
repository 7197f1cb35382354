"""What the pages on this machine's own address have in common: whom they answer, and the headers of every answer.

A page elsewhere whose name resolves to 127.0.0.1 is refused by its Host header; a page of another site by its Origin.
"""

from __future__ import annotations

HOST = "127.0.0.1"


def is_own(host: str | None, origin: str | None, port: int) -> bool:
    """Whether a request names this server. host, origin: its headers, None where it has none."""
    own = {f"{name}:{port}" for name in (HOST, "localhost")}
    return host in own and (origin is None or origin.removeprefix("http://") in own)


def refusal(port: int) -> dict[str, str]:
    """The answer to any other request."""
    return {"error": f"This page answers only to http://{HOST}:{port}/."}


def port_in_use(port: int, error: OSError) -> str:
    """What is said where a port cannot be used."""
    return f"Port {port} cannot be used ({error.strerror}). Choose another with --port, or 0 for any."


def headers(images: str) -> dict[str, str]:
    """Headers of every answer: its own scripts and styles alone, and images from these sources."""
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
    }
