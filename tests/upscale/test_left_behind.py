"""What ``skipdiff upscale`` leaves behind: what may name the place, and XMP with entities."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from skipdiff_env.images.formats import exif
from skipdiff_env.images.formats.exif import Directories
from skipdiff_env.images.formats.metadata import exif_bytes
from skipdiff_env.images.formats.tiff import encode_tiff
from skipdiff_env.images.raster import Photo
from tests.images.test_privacy import DC, FOREIGN, PIXELS, PLACES, packet
from tests.images.test_xmp import ILLEGIBLE, PLAIN, file_with

from .conftest import Upscale


def with_exif(name: str, found: Directories) -> bytes:
    if name == "TIFF":
        return encode_tiff(Photo(PIXELS), found)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, name, exif=exif_bytes(found))
    return buffer.getvalue()


@pytest.mark.parametrize("keep", [False, True], ids=["", "--keep-location"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_foreign_blocks_in_the_exif_directory(
    source: str, keep: bool, tmp_path: Path, upscale: Upscale
) -> None:
    pointers = {0x8825, 0x8769}
    tags = {tag: exif.longs(8) if tag in pointers else exif.text(f"secret {tag}") for tag in FOREIGN.values()}
    found = Directories({271: exif.text("Maker")}, {**tags, 0xA437: exif.text("Zoë")})
    (tmp_path / "a").write_bytes(with_exif(source, found))
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        ran = upscale(tmp_path / "a", "-o", tmp_path / name, *(["--keep-location"] if keep else []))
        assert ran.status == 0, ran.err
        assert (b"secret" in (tmp_path / name).read_bytes()) == keep
        with Image.open(tmp_path / name) as image:
            inner = set(image.getexif().get_ifd(exif.EXIF_IFD))
        assert not inner & pointers, "what was pointed to lies elsewhere now"
        assert inner & set(tags) == (set(tags) - pointers if keep else set()) and 0xA437 in inner


@pytest.mark.parametrize("keep", [False, True], ids=["", "--keep-location"])
def test_the_command_leaves_a_drones_place_behind(keep: bool, tmp_path: Path, upscale: Upscale) -> None:
    source = tmp_path / "drone.jpg"
    secrets = [(uri, name, f"secret-{i}") for i, (uri, name) in enumerate(PLACES)]
    Image.fromarray(PIXELS).save(source, xmp=packet([*secrets, (DC, "title", "public")], "element"))
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        ran = upscale(source, "-o", tmp_path / name, *(["--keep-location"] if keep else []))
        assert ran.status == 0
        data = (tmp_path / name).read_bytes()
        assert (b"secret" in data) == keep and b"public" in data


BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
ENTITIES = {
    "a bomb": f'<!DOCTYPE x [<!ENTITY e0 "secret">{BOMB}]>',
    "a file": '<!DOCTYPE x [<!ENTITY e11 SYSTEM "file:///etc/hostname">]>',
    "from outside": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/secret.dtd">',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", ENTITIES)
def test_entities_are_refused_and_that_is_said(
    kind: str, encoding: str, tmp_path: Path, upscale: Upscale
) -> None:
    whole = (
        ENTITIES[kind] + PLAIN.decode().replace("public", "&e11;" if "side" not in kind else "t")
    ).encode(encoding)
    (tmp_path / "a.jpg").write_bytes(file_with("JPEG", whole))
    ran = upscale(tmp_path / "a.jpg", "-o", tmp_path / "b.jpg", "--keep-location")
    assert ran.status == 0
    assert ran.out.endswith(f"note: {ILLEGIBLE}\n")
    assert b"secret" not in (tmp_path / "b.jpg").read_bytes()
