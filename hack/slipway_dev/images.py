"""Slipway's images, built from their Dockerfiles and cached by the content of what goes into them."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from slipway_dev.base_image import BASE, base, base_identity
from slipway_dev.cache import content_key, entry, files_below, is_wanted, prune
from slipway_dev.console import CommandError, say, step
from slipway_dev.engine import engine
from slipway_dev.paths import REPOSITORY, architecture, cache_folder
from slipway_dev.processes import run
from slipway_dev.python import image_packages
from slipway_dev.store import REGISTRY, Image, archive_folder

LAYOUT = "1"  # part of the key: change it with the way images are built
KEPT = 4  # images of each name, those used last
# What was used so lately stays as well: its reference may be in the hands of a command that has not begun yet.
RECENT_SECONDS = 3600.0


@dataclass(frozen=True)
class Product:
    """An image to build. `sources` (files or folders below context) and the requirements' packages are its context.

    The Dockerfile's BASE is the product named `base`, or the Python image that all others build on.
    """

    name: str
    context: Path
    dockerfile: Path
    sources: tuple[str, ...]
    requirements: Path | None = None
    on_demand: bool = False  # built only when named
    base: str = ""


OPERATOR, SERVER = REPOSITORY / "operator", REPOSITORY / "serving-image"
PRODUCTS = {
    product.name: product
    for product in (
        Product("operator", OPERATOR, OPERATOR / "Dockerfile", ("slipway",), OPERATOR / "requirements.txt"),
        Product("server", SERVER, SERVER / "Dockerfile", ("slipway_server",), SERVER / "requirements.txt"),
        Product(
            "server-gpu",
            SERVER,
            SERVER / "Dockerfile",
            ("slipway_server",),
            SERVER / "gpu-requirements.txt",
            on_demand=True,
        ),
        Product("router", OPERATOR, OPERATOR / "router.Dockerfile", (), OPERATOR / "router-requirements.txt"),
    )
}


def products_named(names: list[str]) -> list[Product]:
    """Return the products of these names; for none all but those on demand."""
    unknown = sorted(set(names) - set(PRODUCTS))
    if unknown:
        raise CommandError(f"no image named {', '.join(unknown)}; there are: {', '.join(PRODUCTS)}")
    return [PRODUCTS[name] for name in names] if names else [each for each in PRODUCTS.values() if not each.on_demand]


def custom(name: str, context: Path, dockerfile: Path, requirements: Path | None, base: str = "") -> Product:
    """Return a product made of everything in a folder."""
    if base:
        products_named([base])
    for path in (context, dockerfile, requirements):
        if path is not None and not path.exists():
            raise CommandError(f"{path} does not exist")
    sources = tuple(sorted(path.name for path in context.iterdir() if path.name != "__pycache__"))
    return Product(name, context, dockerfile, sources, requirements, base=base)


def build(product: Product) -> Image:
    """Return the image of a product, building it when the cache has none of its content."""
    ours = build(PRODUCTS[product.base]) if product.base else None
    identity = ours.reference if ours else base_identity() or base(engine())[1]
    tag = _key(product, identity)
    reference = f"{REGISTRY}/{product.name}:{tag}"
    folder = entry("images", archive_folder(product.name, tag), lambda folder: _build(product, ours, reference, folder))
    return Image(reference, folder / "image.tar")


def prune_old() -> None:
    """Remove what was built long ago, from the cache and from the engine, and say what that freed in the cache folder."""
    free = shutil.disk_usage(cache_folder()).free
    archives = prune("images", KEPT, RECENT_SECONDS)
    if not archives:
        return
    images = engine().prune(REGISTRY, _has_archive)
    freed = max(shutil.disk_usage(cache_folder()).free - free, 0) / 1e9
    say(f"old images removed: {len(archives)} from the cache, {images} from the engine's store; {freed:.1f} GB freed")


def _has_archive(reference: str) -> bool:
    name, _, tag = reference.rpartition("/")[2].partition(":")
    return is_wanted("base", tag) if name == BASE else is_wanted("images", archive_folder(name, tag))


def _key(product: Product, base_identity: str) -> str:
    return content_key([LAYOUT, architecture(), base_identity, product.dockerfile, *_inputs(product)])


def _inputs(product: Product) -> list[Path]:
    inputs = [product.context / source for source in product.sources]
    return inputs if product.requirements is None else [*inputs, product.requirements]


def _build(product: Product, ours: Image | None, reference: str, folder: Path) -> None:
    builder = engine()
    if ours:
        base_reference = identity = ours.reference
        if builder.image_id(ours.reference) is None:
            builder.load(ours.archive)
    else:
        base_reference, identity = base(builder)
    with tempfile.TemporaryDirectory(prefix=".context-", dir=folder) as temporary:
        context = Path(temporary)
        _fill_context(product, context)
        if _key(replace(product, context=context), identity) != reference.rpartition(":")[2]:
            raise CommandError(f"the sources of {product.name} changed while they were copied: run the command again")
        with step(f"building {reference}"):
            builder.build(context, product.dockerfile, base_reference, reference)
    with step(f"saving {reference}"):
        builder.save(reference, folder / "image.tar")


def _fill_context(product: Product, context: Path) -> None:
    """Copy the sources (not what an interpreter left among them) and link the packages."""
    for source in _inputs(product):
        for name, file in files_below(source):
            target = context / source.name / name if source.is_dir() else context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
    if product.requirements is not None:
        run(["cp", "-al", image_packages(product.requirements), context / "packages"])
