"""pip-compile, with two changes: it believes stated hashes, and knows the image's exact Python.

Unmodified, it asks a second, unstandardised interface of the index for the hashes of every
release, megabytes for some; and where there is none it downloads every file of a release,
for all systems and Pythons, only to hash it: minutes instead of seconds.  Here the page that
was read anyway is believed where it states a hash.  pip refuses a file that does not have
the stated hash, so nothing is trusted that was not before.

Unmodified, it holds Requires-Python against the interpreter that it runs on, 3.11.7 for
example, where the image may have 3.11.2.
"""

from __future__ import annotations

import os
import sys

TARGET = "PACKAGER_TARGET_PYTHON"
"""The environment variable that names the target's version, ``3.11.2``."""


def main() -> None:
    """Run pip-compile with both changes."""
    # Imported here: only the process that runs this needs pip's insides.
    import gc
    from functools import partialmethod

    from pip._internal.cli.req_command import RequirementCommand
    from pip._internal.exceptions import PipError
    from pip._internal.models.link import Link
    from pip._internal.models.target_python import TargetPython
    from piptools.repositories.pypi import PyPIRepository
    from piptools.scripts.compile import cli

    hash_by_download = PyPIRepository._get_file_hash

    def stated_hash(self: PyPIRepository, link: Link) -> str:
        if link.hash_name == "sha256" and link.hash:
            return f"sha256:{link.hash}"
        return hash_by_download(self, link)

    def no_second_interface(_: PyPIRepository, __: object) -> None:
        return None

    # Ten thousands of links live until the end of a short process: looking for garbage among
    # them takes a tenth of its time.
    gc.disable()
    version = tuple(int(part) for part in os.environ[TARGET].split("."))
    target = TargetPython(py_version_info=version)
    finder = partialmethod(RequirementCommand._build_package_finder, target_python=target)
    PyPIRepository._get_file_hash = stated_hash  # type: ignore[method-assign]
    PyPIRepository._get_project = no_second_interface  # type: ignore[assignment,method-assign]
    RequirementCommand._build_package_finder = finder  # type: ignore[assignment,method-assign]
    try:
        cli()
    except PipError as error:  # what pip would have printed without a traceback
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
