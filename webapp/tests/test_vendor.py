"""Front-end files of others are the ones that were checked in, each with its licence."""

import hashlib
from pathlib import Path

import webapp

VENDOR = Path(webapp.__file__).parent / "static" / "vendor"


def test_every_file_is_listed_and_as_it_was() -> None:
    listed = {}
    for line in (VENDOR / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        listed[name.removeprefix("./")] = digest
    found = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert found == listed


def test_every_package_carries_its_licence() -> None:
    for package in VENDOR.iterdir():
        if package.is_dir():
            assert list(package.glob("LICENSE*")), package.name
