"""Names of Debian packages become exact files down a verified chain, or an error by name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from debian.debian_support import Version

from packager.errors import ClaimError, HostError, UsageError
from packager.lock import apt_sources, debian, debian_archive
from packager.lock.debian_index import Index, closure, refuse_conflicts
from packager.project import BASES

pytest_plugins = ["debian_fixtures"]
SUITES = list(debian.SUITES)


@pytest.fixture(scope="session", autouse=True)
def honest(fetch):
    """What the archive that this host reaches gives, before any test gets in its way."""
    return fetch("bookworm", "amd64")[0]


@pytest.fixture
def alone(monkeypatch, mirror):
    """This host has no apt, and the snapshot archive is not there."""
    monkeypatch.setattr(apt_sources, "archives", list)
    monkeypatch.setattr(debian, "SNAPSHOT", f"{mirror.root}/gone/dists/archive")
    return mirror


def resolve(mirror, session, suite="bookworm", architecture="amd64", extra=(), **options):
    return debian.resolve(
        suite, architecture, extra, session=session, mirror=mirror.address, **options
    )


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_default_base_resolves(fetch, suite, architecture):
    pins, _ = fetch(suite, architecture)
    names = [pin.name for pin in pins.packages]
    assert names == sorted(set(names))
    assert {"dash", "libc6", "mawk"} <= set(names)
    python = names.index(f"python{debian.SUITES[suite]}-minimal")
    assert pins.packages[python].version.startswith(f"{BASES[f'debian:{suite}']}-")
    assert not {"dpkg", "debconf", "perl-base"} & set(names)
    assert 40 < len(names) < 70
    assert {pin.architecture for pin in pins.packages} == {architecture, "all"}
    assert {pin.role for pin in pins.packages} == {"base"}
    assert sum(pin.size for pin in pins.packages) < 40e6
    assert re.fullmatch(r"20\d{6}T\d{6}Z", pins.timestamp)


def test_packages_asked_for_are_extra_and_leave_the_base_alone(fetch):
    plain, _ = fetch("bookworm", "amd64")
    more, _ = fetch("bookworm", "amd64", "libgomp1", "libopenblas0")
    extra = {pin.name for pin in more.packages if pin.role == "extra"}
    assert extra == {
        "libgomp1",
        "libopenblas0",
        "libopenblas0-pthread",
        "libgfortran5",
        "libquadmath0",
    }
    assert [pin for pin in more.packages if pin.role == "base"] == list(plain.packages)


def test_a_mirror_with_the_same_bytes_gives_the_same_pins(alone, session, honest):
    assert resolve(alone, session) == honest
    assert any("/debian-security/dists/bookworm-security/" in path for path in alone.asked)


def test_no_archive_in_reach_is_said_with_every_address_that_was_tried(alone, session):
    alone.bodies.clear()
    with pytest.raises(HostError) as caught:
        resolve(alone, session)
    assert f"{alone.address}/dists/bookworm/InRelease: answers 404 Not Found" in caught.value.what
    assert f"{debian.SNAPSHOT}/debian/20" in caught.value.what


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("part", ["", "-updates", "-security"])
def test_one_changed_byte_of_a_release_file_is_refused(alone, session, part):
    alone.tamper(f"/dists/bookworm{part}/InRelease", flip)
    with pytest.raises(ClaimError, match=f"no key of bookworm{part} signed") as caught:
        resolve(alone, session)
    assert f"/dists/bookworm{part}/InRelease" in caught.value.where


def test_text_around_the_signed_part_is_not_believed(alone, session, honest):
    fake = b"Origin: Debian\nCodename: bookworm\nDate: Thu, 01 Jan 2099 00:00:00 UTC\n\n"
    alone.tamper("/dists/bookworm/InRelease", lambda data: fake + data)
    assert resolve(alone, session) == honest


def test_one_changed_byte_of_a_list_is_refused(alone, session):
    digest = re.search(
        rb"^ ([0-9a-f]{64}) +\d+ main/binary-amd64/Packages\.xz$",
        alone.bodies["/dists/bookworm/InRelease"],
        re.MULTILINE,
    )
    alone.tamper(f"/by-hash/SHA256/{digest[1].decode()}", flip)
    with pytest.raises(ClaimError, match="the list of packages is not the one that bookworm's"):
        resolve(alone, session)


def test_another_suites_release_file_is_refused_though_the_same_key_signed_it(alone, session):
    alone.bodies["/dists/bookworm/InRelease"] = alone.bodies["/dists/trixie/InRelease"]
    with pytest.raises(ClaimError, match="the release file of trixie, not of bookworm"):
        resolve(alone, session)


def test_the_main_archives_key_does_not_count_for_the_security_archive(alone, session):
    updates = alone.bodies["/dists/bookworm-updates/InRelease"]
    alone.bodies["/dists/bookworm-security/InRelease"] = updates
    with pytest.raises(ClaimError, match="no key of bookworm-security signed"):
        resolve(alone, session)


class _Later(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(days=60)


def test_an_expired_release_file_is_refused(alone, session, monkeypatch):
    monkeypatch.setattr(debian_archive, "datetime", _Later)
    with pytest.raises(HostError, match="bookworm-security expired on"):
        resolve(alone, session)


def test_the_snapshot_archive_may_have_expired(alone, session, monkeypatch, honest):
    monkeypatch.setattr(debian_archive, "datetime", _Later)
    monkeypatch.setattr(debian_archive, "SNAPSHOT", f"{alone.root}/archive")
    monkeypatch.setattr(debian, "SNAPSHOT", f"{alone.root}/archive")
    found = debian.resolve("bookworm", "amd64", [], session=session, timestamp=honest.timestamp)
    assert found == honest
    assert f"/archive/debian/{honest.timestamp}/dists/bookworm/InRelease" in alone.asked
    security = f"/archive/debian-security/{honest.timestamp}/dists/bookworm-security/InRelease"
    assert security in alone.asked


UBUNTU = b"Origin: Ubuntu\nCodename: bookworm\n"


def test_a_mirror_of_another_distribution_is_refused_by_its_name(alone, session):
    alone.bodies["/dists/bookworm/InRelease"] = UBUNTU
    with pytest.raises(UsageError, match="this is Ubuntu's archive, not Debian's"):
        resolve(alone, session)


def test_a_hosts_archive_of_another_distribution_is_passed_over(alone, session, monkeypatch):
    alone.bodies["/dists/bookworm/InRelease"] = UBUNTU
    monkeypatch.setattr(apt_sources, "archives", lambda: [alone.address])
    with pytest.raises(HostError, match="the archive of Ubuntu, not Debian's"):
        debian.resolve("bookworm", "amd64", [], session=session)


def test_messages_hold_no_password(alone, session, monkeypatch):
    secret = alone.address.replace("//", "//user:hunter2@") + "/empty"
    alone.bodies.clear()
    monkeypatch.setattr(apt_sources, "archives", lambda: [secret])
    with pytest.raises(HostError) as caught:
        debian.resolve("bookworm", "amd64", [], session=session)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_package_is_named_with_what_is_close(alone, session):
    with pytest.raises(UsageError, match="no package 'libgom1'") as caught:
        resolve(alone, session, extra=["libgom1"])
    assert "libgomp1" in caught.value.hint
    assert caught.value.where == "pyproject.toml, [tool.packager] os-packages"


def test_a_name_that_others_provide_is_answered_with_theirs(alone, session):
    with pytest.raises(UsageError) as caught:
        resolve(alone, session, extra=["awk"])
    assert "gawk or mawk" in caught.value.hint


@pytest.mark.parametrize(("suite", "architecture"), [("sid", "amd64"), ("bookworm", "riscv64")])
def test_an_unknown_base_is_refused_before_any_network(suite, architecture):
    with pytest.raises(UsageError, match=f"no base is made of debian:{suite} for {architecture}"):
        debian.resolve(suite, architecture, [], session=None)


# Where bytes may be found.


def pins_of(*files: str) -> debian.DebianPins:
    packages = tuple(debian.DebPin("x", "1", "all", file, 1, "00", "base") for file in files)
    return debian.DebianPins("bookworm", "amd64", "20261119T021254Z", packages)


def test_places_are_the_mirror_then_the_host_then_the_snapshot_archive(monkeypatch):
    hosts = ["http://apt.example/debian", "http://apt.example/debian-security"]
    monkeypatch.setattr(apt_sources, "archives", lambda: hosts)
    pins = pins_of("pool/main/x/x_1_all.deb", "pool/updates/main/x/x_1_all.deb")
    plain, security = pins.packages
    past = debian.SNAPSHOT
    assert debian.places(plain, pins, mirror="http://lab.example/mirror/debian/") == [
        f"http://lab.example/mirror/debian/{plain.file}",
        f"http://apt.example/debian/{plain.file}",
        f"http://apt.example/debian-security/{plain.file}",
        f"{past}/debian/20261120T021254Z/{plain.file}",
    ]
    assert debian.places(security, pins, mirror="http://lab.example/mirror/debian/") == [
        f"http://lab.example/mirror/debian-security/{security.file}",
        f"http://apt.example/debian-security/{security.file}",
        f"http://apt.example/debian/{security.file}",
        f"{past}/debian-security/20261120T021254Z/{security.file}",
    ]


def test_a_host_without_a_security_archive_is_sought_one_beside_its_mirror(monkeypatch):
    monkeypatch.setattr(apt_sources, "archives", lambda: ["http://apt.example/debian"])
    pins = pins_of("pool/updates/main/x/x_1_all.deb")
    [security] = pins.packages
    assert debian.places(security, pins)[:2] == [
        f"http://apt.example/debian/{security.file}",
        f"http://apt.example/debian-security/{security.file}",
    ]


def test_nobodys_apt_leaves_the_snapshot_archive(monkeypatch):
    monkeypatch.setattr(apt_sources, "archives", list)
    pins = pins_of("pool/main/x/x_1_all.deb")
    [place] = debian.places(pins.packages[0], pins)
    assert place.startswith(debian.SNAPSHOT)


def test_apt_sources_are_read_in_both_styles(tmp_path):
    apt = tmp_path / "etc/apt"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "mirrors").mkdir()
    (apt / "mirrors/list").write_text("# comment\nhttp://file.example/debian\tpriority:1\n")
    (apt / "sources.list").write_text(
        "# deb http://commented.example/debian bookworm main\n"
        "deb-src http://source.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/a b] http://one.example/debian/ bookworm main\n"
        "deb cdrom:[Debian]/ bookworm main\n"
        "deb file:/srv/debian bookworm main\n"
    )
    (apt / "sources.list.d/a.sources").write_text(
        "Types: deb deb-src\n# URIs: http://old.example\n"
        "URIs: http://two.example/debian http://one.example/debian\n"
        "Suites: bookworm\n\n"
        "Types: deb\nURIs: mirror+file:/etc/apt/mirrors/list\nSuites: bookworm\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\n\n"
        "Types: deb-src\nURIs: http://source.example/debian\nSuites: bookworm\n"
    )
    (apt / "sources.list.d/b.list.disabled").write_text("deb http://off.example/debian x main\n")
    assert apt_sources.archives(tmp_path) == [
        "http://one.example/debian",
        "http://two.example/debian",
        "http://file.example/debian",
    ]


def test_a_host_without_apt_has_no_archives(tmp_path):
    assert apt_sources.archives(tmp_path) == []


# What depends on what: Debian Policy, chapter 7.


def stanza(name, version="1", **fields):
    lines = [f"Package: {name}", f"Version: {version}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in fields.items()]
    return "\n".join(lines).encode()


def names(*stanzas, want=("a",)):
    return sorted(closure(Index([b"\n\n".join(stanzas) + b"\n"]), want, {}))


def test_the_newest_version_over_all_lists_counts():
    lists = [stanza("a", "1.9"), stanza("a", "1.10"), stanza("a", "1.10~rc1")]
    assert Index(lists).newest("a").version == Version("1.10")


def test_dependencies_are_followed_to_the_end_even_in_a_circle():
    found = names(
        stanza("a", Depends="b (>= 1), c:any"),
        stanza("b", Pre_Depends="a"),
        stanza("c"),
        stanza("d"),
    )
    assert found == ["a", "b", "c"]


def test_an_alternative_that_is_there_is_taken_before_the_first_that_fits():
    b, c = stanza("b"), stanza("c")
    assert names(stanza("a", Depends="b | c"), b, c) == ["a", "b"]
    assert names(stanza("a", Depends="x | c"), b, c) == ["a", "c"]
    assert names(stanza("a", Depends="b (>> 1) | c (<= 1)"), b, c) == ["a", "c"]
    assert names(stanza("a", Depends="c, b | c"), b, c) == ["a", "c"]


def test_of_providers_the_one_that_debian_starts_with_is_taken():
    found = names(
        stanza("a", Depends="awk"),
        stanza("gawk", Provides="awk", Priority="optional"),
        stanza("mawk", Provides="awk", Priority="required"),
        stanza("busy", Provides="awk", Priority="optional"),
    )
    assert found == ["a", "mawk"]


@pytest.mark.parametrize(
    ("provides", "depends", "met"),
    [
        ("v", "v", True),
        ("v (= 2)", "v (>= 2)", True),
        ("v (= 1)", "v (>= 2)", False),
        ("v", "v (>= 2)", False),
    ],
)
def test_a_version_is_only_met_by_a_name_provided_with_one(provides, depends, met):
    stanzas = [stanza("a", Depends=depends), stanza("b", Provides=provides)]
    if met:
        assert names(*stanzas) == ["a", "b"]
    else:
        with pytest.raises(HostError, match=r"a needs v \(>= 2\), which the archive does not hold"):
            names(*stanzas)


def test_what_only_scripts_need_is_left_out_unless_it_is_asked_for():
    stanzas = [stanza("a", Depends="debconf (>= 0.5) | debconf-2.0, dpkg"), stanza("dpkg")]
    assert names(*stanzas) == ["a"]
    assert names(*stanzas, want=("a", "dpkg")) == ["a", "dpkg"]


@pytest.mark.parametrize("field", ["Conflicts", "Breaks"])
def test_packages_that_exclude_each_other_are_refused(field):
    def together(relation):
        index = Index([b"\n\n".join([stanza("a", **{field: relation}), stanza("b", Provides="v")])])
        refuse_conflicts(closure(index, ["a", "b"], {}))

    together("b (<< 1), other, a")
    for relation in ("b", "b (<< 2)", "v"):
        with pytest.raises(UsageError, match="a and b exclude each other"):
            together(relation)


def test_locked_time_is_the_newest_signature(alone, session):
    pins = resolve(alone, session)
    dates = [
        datetime.strptime(date.decode(), "%a, %d %b %Y %H:%M:%S UTC").replace(tzinfo=UTC)
        for path, body in alone.bodies.items()
        if "/bookworm" in path
        for date in re.findall(rb"^Date: (.*)$", body[:2000], re.MULTILINE)
    ]
    assert len(dates) == 3
    assert pins.timestamp == f"{max(dates):%Y%m%dT%H%M%SZ}"
