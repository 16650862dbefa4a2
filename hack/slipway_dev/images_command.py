"""hack/images: the images of this repository."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from slipway_dev.console import CommandError
from slipway_dev.images import KEPT, PRODUCTS, build, custom, products_named, prune_old
from slipway_dev.sbom import sbom

DESCRIPTION = f"""\
Build images from their Dockerfiles, with docker where an engine answers, else with buildah. The tag is a hash of the
content, the result an archive in the cache folder that `hack/cluster load` takes by the printed reference. Of each name
the {KEPT} images used last are kept, and whatever was used in the last hour.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; print name and reference of each image."""
    parser = argparse.ArgumentParser(prog="hack/images", description=DESCRIPTION)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb = verbs.add_parser("build", help="build what is not in the cache, and print the references")
    verb.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(PRODUCTS)}")
    verb.add_argument("--json", action="store_true", help="print one JSON object: name to reference")
    bill = verbs.add_parser(
        "sbom", help="print the bill of materials of an image (CycloneDX), which is built where it is not yet"
    )
    bill.add_argument("name", metavar="NAME", help=", ".join(PRODUCTS))
    own = verb.add_argument_group("an image of your own")
    own.add_argument("--context", type=Path, metavar="FOLDER", help="everything in it is the build's context")
    own.add_argument("--dockerfile", type=Path, metavar="FILE", help="default: FOLDER/Dockerfile")
    own.add_argument("--name", help="the image's name")
    own.add_argument("--base", default="", metavar="NAME", help=f"the Dockerfile's BASE: {', '.join(PRODUCTS)}; default: Python")
    own.add_argument("--requirements", type=Path, metavar="FILE", help="hashed; its packages are the context's packages/")
    options = parser.parse_args(arguments)
    if options.verb == "sbom":
        (product,) = products_named([options.name])
        image = build(product)
        print(json.dumps(sbom(image.archive, image.reference), indent=1))
        return
    if options.context is None:
        if options.name or options.dockerfile or options.base or options.requirements:
            own_only = "--name, --dockerfile, --base and --requirements"
            raise CommandError(f"{own_only} describe an image of your own: add --context FOLDER")
        products = products_named(options.names)
    else:
        if not options.name or options.names:
            raise CommandError("an image of your own is named by --name, and built alone")
        context = options.context.resolve()
        dockerfile = (options.dockerfile or context / "Dockerfile").resolve()
        products = [custom(options.name, context, dockerfile, options.requirements, options.base)]
    references = {product.name: build(product).reference for product in products}
    prune_old()
    if options.json:
        print(json.dumps(references, indent=1))
    else:
        for name, reference in references.items():
            print(f"{name} {reference}")
