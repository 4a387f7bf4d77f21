"""Entry point: ``hoster`` and ``python -m hoster``."""

from __future__ import annotations

from hoster.cli.main import main

if __name__ == "__main__":
    main()
