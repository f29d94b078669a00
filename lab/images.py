"""The images that machines are started from: a bare Debian, and one on which the kit has installed Docker."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import yaml

from lab.commands import KIT, out, play_here
from lab.machines import SUITES
from lab.registry import LOCAL, Registry
from slipway.errors import SlipwayError

REPOSITORY = "slipway/lab"
CONTEXT = KIT / "lab/machine"
LOCK = KIT / "inventories/local/images.lock.yml"
OPTIONAL = {
    "127.0.0.1:5000/slipway/postgres": "images_database",
    "127.0.0.1:5000/slipway/inspector": "images_inspector",
}
"""Repository -> the variable that has it built, where an environment wants it."""
LEGACY_CGROUPS = "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MADE_OF = "org.slipway.lab.made-of"
"""The label of an image with Docker that tells from what it was made."""


def prepare() -> None:
    """Have a Docker engine on this machine; a moment where it has one."""
    try:
        out("docker", "info")
    except SlipwayError:
        play_here("playbooks/provision.yml")


def built() -> dict[str, dict[str, str]]:
    """The kit's images in the registry of this machine (repository, tag, digest); builds them where there are none."""
    if not OPTIONAL.keys() <= _locked().keys() or not Registry(LOCAL).answers():
        # Not every environment has them, and a lab may be any.
        wanted = [word for switch in OPTIONAL.values() for word in ("-e", f"{switch}=true")]
        play_here(*wanted, "playbooks/provision.yml", "playbooks/images.yml")
    return _locked()


def _locked() -> dict[str, dict[str, str]]:
    images: dict[str, dict[str, str]] = yaml.safe_load(LOCK.read_text())["images"] if LOCK.exists() else {}
    return images


def registry() -> str:
    """The image of the registry that runs here."""
    return out("docker", "inspect", "--format", "{{.Image}}", "slipway-registry-registry-1").strip()


def base(suite: str) -> str:
    """The newest image of a bare Debian that is here; the kit makes one from packages where there is none."""
    listing = f"docker image ls --filter label=org.slipway.bootstrapped --filter reference=slipway/base:{suite}-*"
    command = [*listing.split(), "--format", "{{.Repository}}:{{.Tag}}"]
    if not out(*command):
        play_here("-e", f"images_base_suite={suite}", "lab/base.yml")
    return max(out(*command).split())


def bare(system: str) -> str:
    """The image of a machine as Debian's installer leaves it, by its id."""
    build = ["docker", "build", "--quiet", "--build-arg", f"BASE={base(SUITES[system])}"]
    return out(*build, "--tag", f"{REPOSITORY}:{system}", str(CONTEXT)).strip()


def with_engine(bare_image: str) -> str:
    """The image of such a machine with the kit's Docker on it, by its id; empty where there is none."""
    listing = ["docker", "image", "ls", "--no-trunc", "--quiet", "--filter", f"label={MADE_OF}={made_of(bare_image)}"]
    return (out(*listing).split() or [""])[0]


def made_of(bare_image: str) -> str:
    """Tells apart what an image with Docker is made from: the machine, the kit's role, and the certificates."""
    told = hashlib.sha256(bare_image.encode())
    role = sorted(path for path in (KIT / "roles/docker").rglob("*") if path.is_file())
    for path in [*role, KIT / "lab/engine.yml", CERTIFICATES]:
        told.update(path.read_bytes() if path.exists() else b"")
    return told.hexdigest()


def keep(container: str, name: str, bare_image: str) -> str:
    """Make an image with Docker of a container that has ended, in place of the one of this name."""
    before = out("docker", "image", "ls", "--no-trunc", "--quiet", name).strip()
    label = f"LABEL {MADE_OF}={made_of(bare_image)}"
    kept = out("docker", "commit", "--change", label, container, name).strip()
    if before:
        with contextlib.suppress(SlipwayError):
            out("docker", "image", "rm", before)
    return kept


def init() -> str:
    """What systemd has to be told on this machine."""
    return LEGACY_CGROUPS if out("docker", "info", "--format", "{{.CgroupVersion}}").strip() == "1" else ""
