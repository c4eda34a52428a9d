"""What stands in the way of data sets, ImageNet weights and imported checkpoints on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segkd.availability.needed import Thing
from segkd.config.data import CamVidData, DatasetConfig, DigitsData, FolderData
from segkd.config.params import Params
from segkd.config.runs import PREPARED, RAW, Run
from segkd.config.study import Checkpoint


@dataclass(frozen=True)
class Obstacle:
    """Why `what` cannot be had, in words that stay the same while nothing changes, and what to do about it."""

    what: str
    why: str
    to_do: str


@dataclass(frozen=True)
class _Fetch:
    """What getting a thing takes: addresses, an account, bytes of disk; fix: how to get it another way."""

    what: str
    fix: str
    urls: tuple[str, ...] = ()
    account: bool = False
    disk: int = 0
    fault: str = ""


def obstacles(
    params: Params, things: Iterable[Thing], checkpoints: Mapping[str, Checkpoint], root: Path = Path()
) -> dict[Thing, Obstacle]:
    """The obstacle of each thing that has one. checkpoints: what is to be imported, by name of its run.

    Hosts are asked only for what must be fetched, all at once. What knows of published data is imported only for them,
    so that the embedded study starts without.
    """
    ways = {thing: way for thing in sorted(things) if (way := _way(params, thing, checkpoints, root))}
    if not ways:
        return {}
    from segkd.availability.reach import unreachable

    silent = unreachable(url for way in ways.values() for url in way.urls)
    crowded = _crowded({thing: way.disk for thing, way in ways.items()}, root)
    found = {thing: _obstacle(way, silent, crowded.get(thing, "")) for thing, way in ways.items()}
    return {thing: one for thing, one in found.items() if one.why}


def _obstacle(way: _Fetch, silent: Mapping[str, str], crowded: str) -> Obstacle:
    why = [way.fault] if way.fault else []
    to_do = way.fix
    if way.account and (lacking := _no_account()):
        why.append(lacking[0])
        to_do = f"{lacking[1]}; or {to_do}"
    why += dict.fromkeys(silent[url] for url in way.urls if url in silent)
    if crowded:
        why.append(f"it needs about {in_bytes(way.disk)} of disk, more than is free")
        to_do = f"{crowded}; then {to_do}" if len(why) > 1 else crowded
    return Obstacle(way.what, "; ".join(why), to_do)


def _way(params: Params, thing: Thing, checkpoints: Mapping[str, Checkpoint], root: Path) -> _Fetch | None:
    """What getting a thing takes; None where it is here."""
    if thing.kind == "released":
        return _import(thing.name, checkpoints[thing.name])
    if thing.kind == "imagenet":
        return _weights(thing.name)
    return _data(thing.name, params.datasets[thing.name], root)


def _import(name: str, checkpoint: Checkpoint) -> _Fetch:
    run = Run.parse(name)
    command = f"segkd import-checkpoint FILE --from {checkpoint.layout} --network {run.network} --recipe {run.recipe}"
    fix = f"{command}, where FILE is from {checkpoint.where}"
    return _Fetch(f"released weights {name}", fix, fault="not imported")


def _data(name: str, config: DatasetConfig, root: Path) -> _Fetch | None:
    what = f"data set {name}"
    if isinstance(config, DigitsData) or _prepared(name, root):
        return None
    if isinstance(config, FolderData):
        place = Path(config.root) / config.description
        fix = f"put it there, or correct `root` in params.yaml: datasets.{name}"
        return None if (root / place).is_file() else _Fetch(what, fix, fault=f"{place} is not there")
    fix = f"get the files another way and hand them over: segkd download {name} --from DIR"
    return _published(what, fix, config, root / RAW / name)


def _prepared(name: str, root: Path) -> bool:
    from segkd.data.restore import RECEIPTS

    return (root / RECEIPTS / f"{name}.json").exists() and (root / PREPARED / name / "manifest.json").exists()


def _published(what: str, fix: str, config: DatasetConfig, raw: Path) -> _Fetch:
    from segkd.data.footprint import facts

    known = facts(config)
    if (raw / "manifest.json").exists():
        return _Fetch(what, fix, disk=known.prepared)
    if isinstance(config, CamVidData):
        return _camvid(what, fix, raw, known.disk)
    return _archives(what, fix, config, raw, known.prepared)


def _camvid(what: str, fix: str, raw: Path, disk: int) -> _Fetch:
    from segkd.data import camvid

    return _Fetch(what, fix, () if camvid.holds_copy(raw) else (camvid.BASE,), disk=disk)


def _archives(what: str, fix: str, config: DatasetConfig, raw: Path, prepared: int) -> _Fetch:
    from segkd.data.shelf import Shelf
    from segkd.data.sources import ARCHIVES

    shelf = Shelf(raw)
    todo = [archive for archive in ARCHIVES[config.kind](config) if shelf.recorded(archive) is None]
    away = [archive for archive in todo if not (shelf.folder / archive.name).exists()]
    packed = sum(archive.bytes or archive.unpacked or 0 for archive in away)
    unpacked = sum(archive.unpacked or archive.bytes or 0 for archive in todo if archive.wanted)
    return _Fetch(
        what,
        fix,
        tuple(archive.url for archive in away),
        any(archive.account for archive in away),
        packed + unpacked + prepared,
    )


def _no_account() -> tuple[str, str] | None:
    """Why there is no account with Cityscapes, and how to have one; None where there is one."""
    from segkd.data import account

    if account.credentials() is not None:
        return None
    names = f"{account.USER} and {account.PASSWORD}"
    return f"no account ({names} are not set)", f"register at {account.REGISTER} (it can take days) and export {names}"


def _weights(name: str) -> _Fetch | None:
    from segkd.networks import catalogue

    if not catalogue.available(name):
        return None
    entry, what = catalogue.pick(name), f"ImageNet weights {name}"
    place = "put it into the cache (SEGKD_CACHE, else ~/.cache/segkd), or set SEGKD_WEIGHTS to a folder that holds it"
    fix = f"download {entry.file} from {entry.page or entry.base + entry.file} and {place}"
    if not entry.base:
        return _Fetch(what, fix, fault="they can only be had by hand")
    return _Fetch(what, fix, (entry.base,))


def _crowded(wanted: Mapping[Thing, int], root: Path) -> dict[Thing, str]:
    """What to do about the disk for each thing that does not fit beside the smaller ones.

    Where raw and prepared data lie on different disks, the one with more room counts: better to try than to refuse.
    """
    places = [place for place in (root, root / RAW, root / PREPARED) if place.exists()]
    free = max(shutil.disk_usage(place).free for place in places)
    level, found = 0, {}
    for thing, size in sorted(wanted.items(), key=lambda item: (item[1], item[0])):
        level += size
        if size and level > free:
            found[thing] = f"free {in_bytes(level - free)}, or make data/ a link to a folder on a larger disk"
    return found


def in_bytes(size: float) -> str:
    """A number of bytes in words: 12 GB, 3.4 GB, 60 MB."""
    unit, number = ("GB", size / 1e9) if size >= 1e9 else ("MB", size / 1e6)
    return f"{number:.0f} {unit}" if number >= 10 or number == 0 else f"{number:.1f} {unit}"
