"""Images: what is decided before Docker is asked to do anything."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from slipway.errors import SlipwayError, UsageError
from slipway.images import Base, apt
from slipway.images.base import BaseAnswer, recipe_key
from slipway.images.build import Found, Image, Source, decide, key, plan, tag_of, unpack
from slipway.images.docker import children_first
from slipway.source import SourceError, ignore_rules, pack

sys.path.insert(0, str(Path(__file__).parents[1]))

from plugins.filter.images_lock import images_lock, images_promotion

SOURCE = Source(archive="", inputs="abc", tags=["1.0-build.1", "sha-0123456"])
PUSHED = Image(repository="127.0.0.1:5000/slipway/backend", source=SOURCE, push=True)
LOCAL = Image(repository="slipway/registry", source=Source(archive="", inputs="abc"))


@pytest.mark.parametrize(
    ("image", "found", "how"),
    [
        (PUSHED, Found(), "built"),
        (PUSHED, Found(id="x", tags=["1.0-build.1", "sha-0123456"]), "pushed"),
        (PUSHED, Found(id="x", tags=["1.0-build.1"]), "built"),
        (PUSHED, Found(id="x", tags=["1.0-build.1", "sha-0123456"], digest="sha256:d"), "unchanged"),
        (PUSHED, Found(digest="sha256:d"), "unchanged"),
        (LOCAL, Found(), "built"),
        (LOCAL, Found(id="x", tags=["2.8"]), "unchanged"),
    ],
    ids=[
        "nothing is there",
        "built but not in the registry",
        "a tag is missing",
        "all is there",
        "pruned here but in the registry",
        "a local image is missing",
        "a local image is there",
    ],
)
def test_only_what_is_missing_is_done(image: Image, found: Found, how: str) -> None:
    assert decide(image, found) == how


def test_an_image_is_removed_before_the_one_that_it_was_committed_from() -> None:
    images = {"a base": "", "b host": "a base", "c host with an engine": "b host", "d other": "gone"}
    order = children_first(images)
    assert sorted(order) == sorted(images)
    assert [image for image in order if image != "d other"] == ["c host with an engine", "b host", "a base"]


def test_the_key_changes_with_everything_that_reaches_the_image() -> None:
    def with_(**change: object) -> str:
        source = Source(archive="", inputs=str(change.get("inputs", "abc")), revision=str(change.get("revision", "")))
        arguments = {"A": str(change.get("argument", "1"))}
        return key(Image(repository="x/y", source=source, build_args=arguments), str(change.get("base", "sha256:1")))

    keys = [with_(), with_(inputs="b"), with_(revision="r"), with_(argument="2"), with_(base="sha256:2")]
    assert len(set(keys)) == len(keys)
    assert with_() == keys[0]


def test_the_time_of_a_build_is_not_part_of_the_key() -> None:
    def at(created: int) -> str:
        return key(Image(repository="x/y", source=Source(archive="", inputs="a", created=created)), "sha256:1")

    assert at(1) == at(2)


@pytest.mark.parametrize(("version", "tag"), [("2.8.3+ds1-2+b8", "2.8.3_ds1-2_b8"), ("1:2.0~rc1-1", "1_2.0_rc1-1")])
def test_a_debian_version_becomes_a_tag(version: str, tag: str) -> None:
    assert tag_of(version) == tag


def test_a_name_without_a_registry_cannot_be_pushed() -> None:
    image = Image(repository="slipway/backend", source=Source(archive="", inputs=""), push=True)
    with pytest.raises(SlipwayError, match="slipway/backend names no registry to push to"):
        plan(image, BaseAnswer(reference="base", id="sha256:0"), {})


def test_a_source_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a base64 tar\.gz"):
        unpack("bm90IGEgdGFy", tmp_path)


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "linked/escape"])
def test_a_source_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        link = tarfile.TarInfo("linked")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(name))
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(UsageError, match="files below one folder"):
        unpack(base64.b64encode(packed.getvalue()).decode(), inside)
    assert not (tmp_path / "escape").exists()


def test_a_packed_source_comes_out_as_it_went_in(tmp_path: Path) -> None:
    context, out = tmp_path / "in", tmp_path / "out"
    (context / "bin").mkdir(parents=True)
    out.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    (context / "bin" / "run").write_text("#!/bin/sh\n")
    (context / "bin" / "run").chmod(0o755)
    (context / "again").symlink_to("bin/run")
    unpack(str(pack(context)["archive"]), out)
    assert (out / "bin" / "run").stat().st_mode & 0o777 == 0o755
    assert (out / "again").readlink() == Path("bin/run")
    assert (out / "Dockerfile").read_text() == "FROM scratch\n"


# --- Where a base comes from -----------------------------------------------------------------------------

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://old.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
"""


def test_debians_own_archives_are_taken_for_another_suite() -> None:
    assert apt.debian_sources(apt.deb822(DEB822), codename="bookworm", suite="trixie") == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


@pytest.mark.parametrize(
    ("line", "sources"),
    [
        ("deb http://m.example/debian bookworm main", ["deb http://m.example/debian trixie main"]),
        ("deb [arch=amd64] http://m.example/debian/ stable main # why", ["deb http://m.example/debian/ trixie main"]),
        ("deb http://m.example/debian trixie main", ["deb http://m.example/debian trixie main"]),
        ("deb http://u:secret@m.example:81/debian bookworm main", ["deb http://m.example:81/debian trixie main"]),
        ("deb [signed-by=/k/vendor.gpg] http://m.example/debian bookworm main", []),
        ("deb http://m.example/debian bookworm contrib", []),
        ("deb http://m.example/debian bookworm-backports main", []),
        ("deb http://vendor.example/apt bookworm main", []),
        ("deb file:/srv/debian bookworm main", []),
        ("# deb http://m.example/debian bookworm main", []),
        ("deb-src http://m.example/debian bookworm main", []),
    ],
)
def test_each_kind_of_line_is_understood(line: str, sources: list[str]) -> None:
    assert apt.debian_sources(apt.one_line(line), codename="bookworm", suite="trixie") == sources


def test_a_cloud_images_mirror_file_is_followed(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors.list"
    mirrors.write_text("# nearest first\nhttps://near.example/debian\nhttps://far.example/debian\n")
    (tmp_path / "sources.list").write_text(f"deb mirror+file:{mirrors} trixie main\n")
    assert [entry.uri for entry in apt.read(tmp_path)] == ["https://near.example/debian"]


def test_both_formats_of_an_apt_configuration_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian trixie main\n")
    (tmp_path / "sources.list.d" / "b.list").write_text("deb http://b.example/debian trixie main\n")
    (tmp_path / "sources.list.d" / "c.sources").write_text(DEB822)
    uris = [entry.uri for entry in apt.read(tmp_path)]
    assert uris[:3] == ["http://a.example/debian", "http://b.example/debian", "http://mirror.example/debian"]


def test_another_mirror_or_recipe_makes_another_base() -> None:
    keys = {
        recipe_key(Base(recipe=recipe), [source])
        for recipe in ("FROM scratch", "FROM scratch\n")
        for source in ("deb http://a.example/debian trixie main", "deb http://b.example/debian trixie main")
    }
    assert len(keys) == 4


# --- What goes into an image, and which version it is ----------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "path", "left_out"),
    [
        ("*.pyc", "a.pyc", True),
        ("*.pyc", "deep/a.pyc", False),
        ("**/*.pyc", "deep/er/a.pyc", True),
        ("**/*.pyc", "a.pyc", True),
        ("**/__pycache__", "src/x/__pycache__/y.pyc", True),
        ("tests", "tests/test_a.py", True),
        ("/tests/", "tests/test_a.py", True),
        ("tests", "src/tests/test_a.py", False),
        ("*\n!src", "src/a.py", False),
        ("*\n!src", "README.md", True),
        ("*\n!src\n**/__pycache__", "src/__pycache__/a", True),
        ("docs/**", "docs/a/b.md", True),
        ("a?.txt", "ab.txt", True),
        ("a[0-9].txt", "a7.txt", True),
        ("# comment\n\n", "# comment", False),
        ("a.b", "axb", False),
    ],
)
def test_a_dockerignore_means_what_it_means_to_docker(rules: str, path: str, left_out: bool) -> None:
    assert ignore_rules(rules)(path) is left_out


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of two commits whose folder app/ was touched by the first only."""
    app = tmp_path / "app"
    (app / "src").mkdir(parents=True)
    (app / "Dockerfile").write_text("FROM scratch\n")
    (app / ".dockerignore").write_text("tests\n**/*.pyc\n")
    (app / "src" / "main.py").write_text("print('hello')\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "The app")
    (tmp_path / "README.md").write_text("Elsewhere\n")
    commit(tmp_path, "Elsewhere")
    return app


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def names_in(source: dict[str, object]) -> list[str]:
    data = base64.b64decode(str(source["archive"]))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return archive.getnames()


def test_a_commit_elsewhere_keeps_the_version(checkout: Path) -> None:
    source = pack(checkout, version="0.1.0")
    first = git(checkout, "rev-parse", "HEAD~1")
    assert source["tags"] == ["0.1.0-build.1", f"sha-{first[:7]}"]
    assert source["version"] == "0.1.0-build.1"
    assert source["revision"] == first
    assert source["created"] == int(git(checkout, "log", "-1", "--format=%ct", first))


def test_a_commit_to_the_folder_makes_a_new_version(checkout: Path) -> None:
    before = pack(checkout, version="0.1.0")
    (checkout / "src" / "main.py").write_text("print('bye')\n")
    commit(checkout, "Say bye")
    after = pack(checkout, version="0.1.0")
    assert after["version"] == "0.1.0-build.3"
    assert after["inputs"] != before["inputs"]


@pytest.mark.parametrize("file", ["src/main.py", "src/new.py"])
def test_a_file_that_is_not_committed_makes_it_dev(checkout: Path, file: str) -> None:
    (checkout / file).write_text("changed\n")
    source = pack(checkout, version="0.1.0")
    assert source["tags"] == ["dev"]
    assert source["why"] == f"only dev: {file} is not committed"


def test_a_deleted_file_makes_it_dev(checkout: Path) -> None:
    (checkout / "src" / "main.py").unlink()
    assert pack(checkout, version="0.1.0")["why"] == "only dev: src/main.py is not committed"


@pytest.mark.parametrize("file", ["tests/test_new.py", "src/main.pyc", "../README.md"])
def test_a_change_that_does_not_reach_the_image_is_no_dirt(checkout: Path, file: str) -> None:
    before = pack(checkout, version="0.1.0")
    (checkout / file).parent.mkdir(exist_ok=True)
    (checkout / file).write_text("changed\n")
    assert pack(checkout, version="0.1.0") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a checkout to somebody else")
def test_root_may_pack_the_checkout_of_the_user_who_typed_sudo(checkout: Path) -> None:
    before = pack(checkout, version="0.1.0")
    for path in [checkout.parent, *checkout.parent.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert pack(checkout, version="0.1.0") == before


def test_a_git_ignored_file_that_reaches_the_image_makes_it_dev(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("local.py\n")
    commit(checkout, "Ignore")
    (checkout / "src" / "local.py").write_text("")
    assert pack(checkout, version="0.1.0")["tags"] == ["dev"]


def test_a_tarball_is_dev(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "archive", "--output", str(tmp_path / "app.tar"), "HEAD", ".")
    bare = tmp_path / "unpacked"
    bare.mkdir()
    with tarfile.open(tmp_path / "app.tar") as archive:
        archive.extractall(bare, filter="data")
    # Below a checkout that does not know it, as in somebody's home folder under git.
    source = pack(bare, version="0.1.0")
    assert source["tags"] == ["dev"]
    assert source["why"] == "only dev: the source is not a git checkout"
    assert source["inputs"] == pack(checkout, version="0.1.0")["inputs"]


def test_a_shallow_checkout_is_dev(checkout: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tmp_path}", "shallow")
    assert "shallow" in str(pack(tmp_path / "shallow" / "app", version="0.1.0")["why"])


def test_packing_does_not_depend_on_times_or_the_umask(checkout: Path) -> None:
    before = pack(checkout)
    file = checkout / "src" / "main.py"
    os.utime(file, (1, 1))
    file.chmod(0o600)
    after = pack(checkout)
    assert (after["inputs"], after["archive"]) == (before["inputs"], before["archive"])
    file.chmod(0o755)
    assert pack(checkout)["inputs"] != before["inputs"]


def test_only_what_the_build_may_see_is_packed(checkout: Path) -> None:
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_a.py").write_text("")
    assert names_in(pack(checkout)) == [".dockerignore", "Dockerfile", "src/main.py"]


def test_the_dockerfile_is_packed_even_where_it_is_ignored(checkout: Path) -> None:
    (checkout / ".dockerignore").write_text("*\n!src\n")
    assert names_in(pack(checkout)) == ["Dockerfile", "src/main.py"]


def test_a_link_to_a_folder_is_packed_as_a_link(checkout: Path) -> None:
    (checkout / "linked").symlink_to("src")
    assert "linked" in names_in(pack(checkout))


def test_a_folder_without_a_dockerfile_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no Dockerfile\. Correct"):
        pack(tmp_path)


def test_a_context_that_is_far_too_large_is_refused(checkout: Path) -> None:
    with (checkout / "database").open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(SourceError, match="would send 30 MB to the build"):
        pack(checkout)


# --- The lock --------------------------------------------------------------------------------------------


def pushed(digest: str, *tags: str) -> dict[str, object]:
    return {"repository": "127.0.0.1:5000/slipway/backend", "tags": list(tags), "digest": digest}


def test_the_lock_keeps_older_tags_and_ends_with_the_newest() -> None:
    text = images_lock("", [pushed("sha256:1", "1-build.1", "sha-1")])
    text = images_lock(text, [pushed("sha256:2", "1-build.2", "sha-2")])
    entries = yaml.safe_load(text)["images"]["127.0.0.1:5000/slipway/backend"]
    assert list(entries.items()) == [
        ("1-build.1", "sha256:1"),
        ("sha-1", "sha256:1"),
        ("1-build.2", "sha256:2"),
        ("sha-2", "sha256:2"),
    ]


def test_the_same_push_again_leaves_the_lock_as_it_is() -> None:
    text = images_lock("", [pushed("sha256:1", "dev")])
    assert images_lock(text, [pushed("sha256:1", "dev")]) == text


def test_a_tag_that_moved_is_pinned_to_its_new_digest() -> None:
    text = images_lock(images_lock("", [pushed("sha256:1", "dev")]), [pushed("sha256:2", "dev")])
    assert "sha256:1" not in text
    assert "dev: sha256:2" in text


@pytest.mark.parametrize("text", ["", "images: {}\n"])
def test_an_image_that_was_not_pushed_changes_no_lock(text: str) -> None:
    assert images_lock(text, [{"repository": "slipway/registry", "tags": ["2.8"], "digest": ""}]) == text


BUILT = images_lock("", [pushed("sha256:1", "1-build.1", "sha-1"), pushed("sha256:2", "1-build.2", "sha-2")])
HERE = "registry.example/shop/backend"


def test_what_another_environment_got_last_is_taken_over_with_all_its_tags_that_stay() -> None:
    before = images_lock("", [{"repository": HERE, "tags": ["1-build.0"], "digest": "sha256:0"}])
    taken = images_promotion(before, BUILT, [HERE, HERE])
    assert yaml.safe_load(taken["text"])["images"] == {
        HERE: {"1-build.0": "sha256:0", "1-build.2": "sha256:2", "sha-2": "sha256:2"}
    }
    assert taken["problem"] == ""
    assert taken["said"].splitlines() == [
        "Copy the images; they keep their digests:",
        f"docker buildx imagetools create --tag {HERE}:1-build.2 --tag {HERE}:sha-2 "
        "127.0.0.1:5000/slipway/backend@sha256:2",
    ]


def test_taking_over_again_changes_nothing_and_copies_nothing_where_the_repository_is_the_same() -> None:
    own = "127.0.0.1:5000/slipway/backend"
    taken = images_promotion("", BUILT, [own])
    assert taken["said"] == ""
    assert images_promotion(taken["text"], BUILT, [own])["text"] == taken["text"]


def test_a_database_that_is_this_environments_alone_stays_as_it_is() -> None:
    postgres = "registry.example/shop/postgres"
    before = images_lock("", [{"repository": postgres, "tags": ["17.1"], "digest": "sha256:0"}])
    taken = images_promotion(before, BUILT, [HERE], [postgres])
    assert yaml.safe_load(taken["text"])["images"] == {
        postgres: {"17.1": "sha256:0"},
        HERE: {"1-build.2": "sha256:2", "sha-2": "sha256:2"},
    }
    assert "postgres" not in taken["said"]
    theirs = images_lock(BUILT, [{"repository": "x/postgres", "tags": ["17.2"], "digest": "sha256:9"}])
    updated = images_promotion(before, theirs, [HERE], [postgres])
    assert yaml.safe_load(updated["text"])["images"][postgres] == {"17.1": "sha256:0", "17.2": "sha256:9"}
    assert "has no repositories called postgres" in images_promotion("", BUILT, [HERE], [postgres])["problem"]


@pytest.mark.parametrize(
    ("source", "repository", "said"),
    [
        ("", HERE, "has no repositories called backend"),
        (BUILT, "registry.example/shop/edge", "has no repositories called edge"),
        (images_lock(BUILT, [{**pushed("sha256:3", "1"), "repository": "x/backend"}]), HERE, "has 2 repositories"),
        (images_lock(BUILT, [pushed("sha256:3", "dev")]), HERE, "has no tag but one that moves, such as dev."),
    ],
    ids=["no lock", "no such image", "two of the name", "a moving tag"],
)
def test_where_there_is_nothing_to_take_over_the_lock_stays(source: str, repository: str, said: str) -> None:
    taken = images_promotion("# before\n", source, [repository])
    assert said in taken["problem"]
    assert (taken["text"], taken["said"]) == ("# before\n", "")
