"""What the role host decides: which parts have something to do on a host, and what firewall and sshd are told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Host = Mapping[str, Any]
"""The answer of host_info."""

SUPPORTED = {"12", "13"}
NEEDS_OWN_KERNEL = {
    "time": "clock",
    "sysctl": "kernel settings",
    "swap": "swap",
    "hostname": "name",
}
"""Parts that a container leaves to the machine that it runs on, and what that machine gives it."""
NEEDS_SYSTEMD = ("firewall", "upgrades", "time", "logs")
CLOCKS = {"chrony": "chrony", "ntpsec": "ntpsec", "openntpd": "openntpd"}
"""Packages that keep the clock instead of systemd's own, and the unit of each."""
PACKAGES = {"user": "sudo", "firewall": "nftables", "upgrades": "unattended-upgrades", "time": "systemd-timesyncd"}
GUARDED = ("user", "ssh", "firewall")
"""Parts whose changes could keep everybody out."""
KEY = re.compile(r"^(?:\S+ )?(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+=*(?: .*)?$")
"""One public key as authorized_keys has it; options before it have no blanks."""
BEGINS, ENDS = "# Slipway: the keys of the inventory", "# Slipway: end of the keys of the inventory"
SIZE = re.compile(r"^(?P<number>[1-9][0-9]*)(?P<unit>[MG])$")
PORTS = re.compile(r"^[0-9]{1,5}(?:-[0-9]{1,5})?$")
HIGHEST_PORT = 65535


# --- which parts have something to do ---------------------------------------------------------------------------------


def host_plan(host: Host, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Decide what the role does on `host`.

    `wanted` has `parts`, `files` (of each part: path, content, mode) and the settings that parts compare. Returns
    `problem` (what is wrong and what to do, or empty), `skipped` (sentences), `packages` to install, and `due`, the
    parts that have something to do.
    """
    plan: dict[str, Any] = {"problem": "", "skipped": [], "packages": [], "due": []}
    if not host["over_ssh"]:
        plan["skipped"] = [
            "Ansible reaches this host without SSH, as the machine that it runs on, "
            "and the kit leaves such a one as it is."
        ]
        return plan
    if host["distribution"] != "debian" or host["version"] not in SUPPORTED:
        plan["problem"] = (
            f"This host runs {host['name']}, and the kit supports Debian 12 and 13. "
            "Use a host with one of these, or take it out of host_parts; nothing was changed."
        )
        return plan
    skipped = _skipped(host, wanted["parts"])
    plan["skipped"] = list(dict.fromkeys(skipped.values()))
    parts = [part for part in wanted["parts"] if part not in skipped]
    plan["problem"] = next(_problems(host, wanted, parts), "")
    if plan["problem"]:
        return plan
    plan["packages"] = _packages(host, parts)
    active = [*parts, *(["undo"] if set(GUARDED) & set(parts) else [])]
    plan["due"] = [
        part
        for part in active
        if part in host["unconfirmed"]
        or PACKAGES.get(part) in plan["packages"]
        or any(_differs(file, host["files"].get(file["path"])) for file in wanted["files"].get(part, []))
        or _stale(part, host, wanted)
    ]
    return plan


def _skipped(host: Host, parts: Sequence[str]) -> dict[str, str]:
    """Part -> the sentence that says why it is left out here."""
    found = {}
    if host["container"]:
        those = [part for part in NEEDS_OWN_KERNEL if part in parts]
        what = _joined([NEEDS_OWN_KERNEL[part] for part in those])
        found = dict.fromkeys(
            those,
            f"This host is a container ({host['container']}), which has its {what} from the machine it runs on: "
            f"{_joined(those)} skipped.",
        )
    if not host["systemd"]:
        those = [part for part in NEEDS_SYSTEMD if part in parts and part not in found]
        found |= dict.fromkeys(those, f"There is no systemd on this host: {_joined(those)} skipped.")
    if not host["sshd"]["installed"] and "ssh" in parts:
        found["ssh"] = "There is no OpenSSH server on this host: ssh skipped."
    return found


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _problems(host: Host, wanted: Mapping[str, Any], parts: Sequence[str]) -> Iterator[str]:
    """What in the inventory cannot be, a sentence and what to do each."""
    if "user" in parts:
        if not wanted["user_keys"]:
            yield (
                "host_parts has user, and host_user_keys is empty, so that nobody could log in as "
                f"{wanted['user']}. Give at least one public key there."
            )
        for number, key in enumerate(wanted["user_keys"]):
            if not KEY.match(key.strip()):
                yield (
                    f"host_user_keys[{number}] is no public key as authorized_keys has it. "
                    "Give the line of a .pub file, for example by lookup('ansible.builtin.file', …)."
                )
    if "ssh" in parts and wanted["login"] == "root" and not wanted["root_login"]:
        yield (
            "Ansible logs in to this host as root, which host_ssh_root_login does not allow. "
            "Add user to host_parts, with host_user_keys, or set host_ssh_root_login to true."
        )
    if "firewall" in parts and wanted["firewall"]["problem"]:
        yield wanted["firewall"]["problem"]
    if "swap" in parts and not SIZE.match(wanted["swap_size"]):
        yield f"host_swap_size is {wanted['swap_size']!r}, which is no size. Write a number and M or G, for example 2G."
    if "sysctl" in parts:
        for key in wanted["sysctl_asked"]:
            if key not in host["sysctl"]:
                yield f"host_sysctl has {key}, which this host's kernel does not know. Correct its name or drop it."


def _packages(host: Host, parts: Sequence[str]) -> list[str]:
    needed = [PACKAGES[part] for part in parts if part in PACKAGES]
    if _clock(host):
        needed = [package for package in needed if package != PACKAGES["time"]]
    return sorted(set(needed) - set(host["packages"]))


def _clock(host: Host) -> str:
    """The unit of what keeps the clock instead of systemd's own; empty where nothing does."""
    return next((unit for package, unit in CLOCKS.items() if package in host["packages"]), "")


def _differs(file: Mapping[str, Any], found: Mapping[str, Any] | None) -> bool:
    if found is None:
        return True
    wanted = (file["content"], file.get("mode", "0644"), "root", "root")
    return wanted != (found["content"], found["mode"], found["owner"], found["group"])


def _stale(part: str, host: Host, wanted: Mapping[str, Any]) -> bool:
    """Whether a part's files are right and the host does not go by them."""
    return part in GOES_BY and GOES_BY[part](host, wanted)


def _undo_stale(host: Host, _: Mapping[str, Any]) -> bool:
    return bool(host["systemd"]) and not _unit(host, "slipway-undo.service")["enabled"]


def _user_stale(host: Host, wanted: Mapping[str, Any]) -> bool:
    have = host["user"]
    return (
        not have["home"]
        or have["shell"] != wanted["user_shell"]
        or not set(wanted["user_groups"]) <= set(have["groups"])
        or have["keys"] != host_authorized(have["keys"], wanted["user_keys"])
    )


def _ssh_stale(host: Host, wanted: Mapping[str, Any]) -> bool:
    have = {line.strip().lower() for line in host["sshd"]["effective"]}
    return not {line.lower() for line in wanted["sshd"]["effective"]} <= have


def _firewall_stale(host: Host, _: Mapping[str, Any]) -> bool:
    return not (host["firewall_loaded"] and _unit(host, "slipway-firewall.service")["enabled"])


def _upgrades_stale(host: Host, _: Mapping[str, Any]) -> bool:
    units = [_unit(host, unit) for unit in ("apt-daily.timer", "apt-daily-upgrade.timer")]
    return not all(unit["active"] and unit["enabled"] for unit in units)


def _time_stale(host: Host, _: Mapping[str, Any]) -> bool:
    unit = _unit(host, host_clock(host))
    return not (unit["active"] and unit["enabled"])


def _logs_stale(host: Host, wanted: Mapping[str, Any]) -> bool:
    written = host["files"].get(wanted["journal_file"], {"mtime": 0})["mtime"]
    return bool(written > _unit(host, "systemd-journald.service")["since"])


def _hostname_stale(host: Host, wanted: Mapping[str, Any]) -> bool:
    return bool(host["hostname"] != wanted["hostname"])


def _swap_stale(host: Host, wanted: Mapping[str, Any]) -> bool:
    own = host["swaps"].get(wanted["swap_file"])
    # mkswap keeps the first page for itself.
    return not host["swaps"] or own not in (None, host_bytes(wanted["swap_size"]) - PAGE)


def _sysctl_stale(host: Host, wanted: Mapping[str, Any]) -> bool:
    return any(host["sysctl"].get(key) != value for key, value in wanted["sysctl"].items())


def _unit(host: Host, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = host["units"].get(name, {"active": False, "enabled": False, "since": 0})
    return found


GOES_BY: dict[str, Callable[[Host, Mapping[str, Any]], bool]] = {
    "undo": _undo_stale,
    "user": _user_stale,
    "ssh": _ssh_stale,
    "firewall": _firewall_stale,
    "upgrades": _upgrades_stale,
    "time": _time_stale,
    "logs": _logs_stale,
    "hostname": _hostname_stale,
    "swap": _swap_stale,
    "sysctl": _sysctl_stale,
}
"""Part -> whether the host does not go by it."""
PAGE = 4096


def host_bytes(size: str) -> int:
    """A size such as 2G in bytes."""
    match = SIZE.match(size)
    return int(match["number"]) * {"M": 2**20, "G": 2**30}[match["unit"]] if match else 0


def host_clock(host: Host) -> str:
    """The unit that keeps the clock of this host."""
    return f"{_clock(host) or 'systemd-timesyncd'}.service"


# --- what each part is told -------------------------------------------------------------------------------------------


def host_authorized(text: str, keys: Sequence[str]) -> str:
    """The text of authorized_keys with these keys, and what others have put there left as it is."""
    pattern = rf"^{re.escape(BEGINS)}$.*?^{re.escape(ENDS)}\n?"
    others = re.sub(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
    if others and not others.endswith("\n"):
        others += "\n"
    return "\n".join([f"{others}{BEGINS}", *(key.strip() for key in keys), f"{ENDS}\n"])


def host_sshd(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What sshd is told: `options` as its file has them, `effective` as it tells them itself (`sshd -T`)."""
    said = {True: "yes", False: "no"}
    keys_only = not settings["password_login"]
    options: dict[str, str] = {
        "PermitRootLogin": "prohibit-password" if settings["root_login"] else "no",
        "PubkeyAuthentication": "yes",
        "PasswordAuthentication": said[not keys_only],
        "KbdInteractiveAuthentication": said[not keys_only],
        "PermitEmptyPasswords": "no",
        "X11Forwarding": "no",
        "LoginGraceTime": "30",
        "ClientAliveInterval": "60",
        "ClientAliveCountMax": "3",
    }
    effective = [f"{key} {value}" for key, value in options.items()]
    effective[0] = effective[0].replace("prohibit-password", "without-password")
    if settings["allow_users"]:
        options["AllowUsers"] = " ".join(settings["allow_users"])
        effective += [f"AllowUsers {user}" for user in settings["allow_users"]]
    given = settings["options"].items()
    further = {key: said[value] if isinstance(value, bool) else str(value) for key, value in given}
    replaced = {key.lower() for key in further}
    effective = [line for line in effective if line.split()[0].lower() not in replaced]
    return {
        "options": [*((key, value) for key, value in options.items() if key.lower() not in replaced), *further.items()],
        "effective": effective,
    }


def host_sysctl(asked: Mapping[str, Any], of_the_kit: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The kernel settings that are to be: the inventory's, and of the kit's those that this kernel has."""
    told = {key: " ".join(str(value).split()) for key, value in asked.items()}
    return {key: value for key, value in of_the_kit.items() if key in known} | told


def host_firewall(
    allow: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Turn what is to be let in into `rules` of one address family each; `problem` says what in it cannot be.

    A rule has `protocol`, `ports`, `family` (ip, ip6, or empty for both), `sources` and `address` (empty: any), and
    `comment`. A source is an address, a network, or a host or a group of the inventory, whose addresses are looked up.
    """
    rules: list[dict[str, Any]] = []
    for number, entry in enumerate(allow):
        where = entry.get("of", f"host_firewall_allow[{number}]")
        if unknown := entry.keys() - {"port", "protocol", "sources", "address", "comment", "of"}:
            return _wrong(f"{where} has the unknown key {min(unknown)}. Compare it with docs/host.md.")
        ports = str(entry.get("port", ""))
        if not _are_ports(ports):
            return _wrong(f"{where}.port is {ports!r}, which is no port. Give a number, or a range such as 8000-8010.")
        protocol = entry.get("protocol", "tcp")
        if protocol not in ("tcp", "udp"):
            return _wrong(f"{where}.protocol is {protocol!r}. Write tcp or udp.")
        address = str(entry.get("address") or "")
        if address and not _family(address):
            return _wrong(f"{where}.address is {address!r}, which is no address. Give one that this host has.")
        sources: list[str] = []
        for source in entry.get("sources") or []:
            found = [str(source)] if _family(str(source)) else _addresses_of(str(source), groups, hostvars)
            if not found:
                return _wrong(
                    f"{where} has the source {str(source)!r}, which is neither an address nor a network, nor a host "
                    "or group of the inventory with an address. Correct it, or give its hosts a host_private_address."
                )
            sources += found
        base = {"protocol": protocol, "ports": ports, "comment": str(entry.get("comment") or f"{protocol} {ports}")}
        rules += [{**base, **one} for one in _by_family(sources, address)]
    return {"rules": rules, "problem": ""}


def _wrong(problem: str) -> dict[str, Any]:
    return {"rules": [], "problem": problem}


def _are_ports(text: str) -> bool:
    if not PORTS.match(text):
        return False
    numbers = [int(number) for number in text.split("-")]
    return numbers == sorted(numbers) and numbers[0] > 0 and numbers[-1] <= HIGHEST_PORT


def _family(text: str) -> str:
    """As nftables calls it: ip or ip6; empty for what is no address and no network."""
    try:
        version = ipaddress.ip_network(text, strict=False).version
    except ValueError:
        return ""
    return {4: "ip", 6: "ip6"}[version]


def _addresses_of(
    name: str, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Where the hosts behind a name of the inventory come from: by their private address or by the other one."""
    hosts = groups.get(name, [name] if name in hostvars else [])
    told = [str(hostvars[host].get(key) or "") for host in hosts for key in ("host_private_address", "ansible_host")]
    return [address for address in dict.fromkeys(told) if _family(address)]


def _by_family(sources: Sequence[str], address: str) -> Iterator[dict[str, Any]]:
    if not sources and not address:
        yield {"family": "", "sources": [], "address": ""}
        return
    for family in ("ip", "ip6"):
        those = sorted({source for source in sources if _family(source) == family})
        if address and _family(address) != family:
            continue
        if those or not sources:
            # nftables wants the bits behind a network's own to be zero.
            networks = [str(ipaddress.ip_network(source, strict=False)) for source in those]
            yield {"family": family, "sources": _collapsed(networks), "address": address}


def _collapsed(networks: Sequence[str]) -> list[str]:
    """The same addresses without overlaps, which a set of nftables does not take."""
    versions = [ipaddress.ip_network(network) for network in networks]
    v4 = ipaddress.collapse_addresses(one for one in versions if isinstance(one, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(one for one in versions if isinstance(one, ipaddress.IPv6Network))
    return [str(one) for one in (*v4, *v6)]


def host_own_ports(
    host: str,
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    services: Mapping[str, Mapping[str, Any]],
    *,
    database: Mapping[str, Any],
    ssh_ports: Sequence[str],
    ssh_sources: Sequence[str],
    entry_ports: Sequence[int],
) -> list[dict[str, Any]]:
    """What the kit itself has to let in on a host, in the form of host_firewall_allow.

    SSH; the public entry where users arrive; behind an edge tier, the services that an app host offers to it; and a
    bundled `database`, for whom it lets in itself: `hosts`, `port` and `from`, or empty.
    """
    rules: list[dict[str, Any]] = [
        {"port": port, "sources": list(ssh_sources), "comment": "SSH", "of": "host_firewall_ssh_sources"}
        for port in dict.fromkeys(ssh_ports)
    ]
    apps, edges = groups.get("app", []), groups.get("edge", [])
    tier = [one for one in edges if one not in apps]
    if host in tier or (host in apps and not tier):
        rules += [{"port": port, "comment": "the public entry"} for port in dict.fromkeys(entry_ports)]
    elif host in apps:
        # As slipway.contract has it: a service that says no publish answers on its own port.
        offered = {
            name: spec.get("publish") or spec.get("port")
            for name, spec in services.items()
            if (spec.get("route") or {}).get("hosts")
        }
        rules += [
            {
                "port": port,
                "sources": tier,
                "address": hostvars[host].get("host_private_address", ""),
                "comment": f"{name}, for the edge tier",
            }
            for name, port in offered.items()
            if port
        ]
    if host in database.get("hosts", []):
        rules.append(
            {
                "port": database["port"],
                "sources": list(database["from"]),
                "address": hostvars[host].get("host_private_address", ""),
                "comment": "PostgreSQL",
                "of": "database_clients or database_replicas",
            }
        )
    return rules


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "host_authorized": host_authorized,
            "host_bytes": host_bytes,
            "host_clock": host_clock,
            "host_firewall": host_firewall,
            "host_own_ports": host_own_ports,
            "host_plan": host_plan,
            "host_sshd": host_sshd,
            "host_sysctl": host_sysctl,
        }
