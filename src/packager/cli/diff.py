"""``packager diff``: say why two images differ."""

from __future__ import annotations

import json
import sys

import click

from packager.cli.shared import Context, json_option


@click.command()
@click.argument("a")
@click.argument("b")
@json_option
@click.pass_obj
def diff(context: Context, a: str, b: str, as_json: bool) -> None:
    """Say why the images A and B differ: config, layers, paths, and the inside of a file.

    Each is a tag or ID in the engine, an archive (of packager build -o or docker save, gzipped
    or not) or a folder with an OCI layout. They need not be packager's.

    \b
    packager diff penguins:0.1.0 penguins:0.1.1    two images of the engine
    packager diff mine.tar theirs.tar              two archives
    packager diff image.tar penguins:0.1.0         did the engine keep what was built?

    Layers are paired by their digests, then by what the images' histories say of them. Of
    each pair the first path that differs is printed, with the wheel or Debian package that it
    came with, and how many follow; --json prints all of them. A path differs in:

    \b
    presence    it is on one side only       mode, owner, time   as the words say
    type        a file here, a link there    attributes          extended ones
    content     other bytes                  order               its place in the layer
    link        another target               encoding            none of it, but the tar's
                                                                 own bytes

    Of the first file with other bytes the inside is shown: by diffoscope if it is on PATH.
    Manifests are compared where both images have one and the configs are the same.

    Exits 0 where the images are the same, and 1 where they differ.
    """
    from packager import diff as comparing
    from packager.console import print_difference
    from packager.store import Store

    with Store().scratch() as scratch:
        found = comparing.between(a, b, scratch)
    if as_json:
        click.echo(json.dumps(comparing.as_json(found), indent=1))
    else:
        print_difference(context.out(), found)
    sys.exit(0 if found.same else 1)
