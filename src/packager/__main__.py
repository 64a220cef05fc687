"""``python -m packager`` is ``packager``."""

from packager.cli import main

main()
