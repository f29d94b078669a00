"""What the edge is told: the text of a site as an operator reads it, and the files that are written for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from slipway.contract import Health, Route, Service, Tls
from slipway.edge import Edge, Maintenance, Tier, _overlap, balanced, certificates, page, site
from slipway.errors import SlipwayError
from slipway.release import Manifest

RELEASE = "0123456789abcdef"
CLOSED = Maintenance(since="2026-11-24 18:00 UTC", by="alice", reason="The database moves.", retry_after=120)

API = Service(image="r/api", user="1:1", port=8000, publish=4100, health=Health(path="/ready?deep=1"))


def service(**change: Any) -> Service:
    return msgspec.structs.replace(API, **change)


def manifest(release: str = RELEASE, fingerprints: dict[str, str] | None = None, **services: Service) -> Manifest:
    return Manifest(
        name="shop",
        environment="production",
        id=release,
        kit="1",
        images={},
        tags={},
        fingerprints=fingerprints or {},
        services=services,
    )


def switch(maintenance: Maintenance | None = None, upstreams: tuple[str, ...] = ("10.207.0.2:8000",)) -> str:
    return site(manifest(api=API), {"api": upstreams}, maintenance).switch


def entry(**services: Any) -> str:
    return site(manifest(**services), {name: ["10.207.0.2:8000"] for name in services}).entry


def routed(**route: Any) -> Service:
    return service(route=Route(**route))


# --- the switch: where a release is -------------------------------------------------------------------------------


def test_the_switch_sends_a_service_to_its_release() -> None:
    assert (
        switch()
        == f"""\
# release {RELEASE}
# Written by slipway, which writes it anew at the next deploy.

http://:4100 {{
	bind unix//run/caddy/4100.sock
	vars release {RELEASE}
	reverse_proxy 10.207.0.2:8000 {{
		import forwarded
		lb_policy round_robin
		lb_try_duration 5s
		lb_try_interval 50ms
		transport http {{
			dial_timeout 1s
			response_header_timeout 60s
			keepalive 4s
		}}
	}}
}}
"""
    )


def test_replicas_take_turns_and_one_that_is_gone_sits_out() -> None:
    text = switch(upstreams=("10.207.0.2:8000", "10.207.0.3:8000"))
    assert "reverse_proxy 10.207.0.2:8000 10.207.0.3:8000 {" in text
    assert "lb_policy round_robin" in text
    assert "fail_duration 2s" in text


def test_a_single_one_never_sits_out_since_nobody_could_stand_in() -> None:
    assert "fail_duration" not in switch()


def test_behind_a_release_that_is_watched_stands_the_one_before_for_what_it_does_not_accept() -> None:
    text = site(manifest(api=API), {"api": ["10.207.0.18:8000"]}, behind={"api": ["10.207.0.2:8000"]}).switch
    first, errors = text.split("\thandle_errors {\n")
    assert "reverse_proxy 10.207.0.18:8000 {" in first
    assert "lb_try_duration 0s" in first, "nobody waits for one that is gone"
    assert errors.startswith("\t\t@unreached vars_regexp {err.message} ^dial\n\t\thandle @unreached {\n")
    assert "reverse_proxy 10.207.0.2:8000 {" in errors
    assert "lb_try_duration 5s" in errors


def test_patience_and_the_time_to_answer_are_those_of_the_contract() -> None:
    shop = manifest(api=routed(patience=7.5, answer_timeout=300))
    text = site(shop, {"api": ["10.207.0.2:8000"]}).switch
    assert "lb_try_duration 7.5s" in text
    assert "response_header_timeout 300s" in text


def test_a_service_without_a_port_is_not_the_edges_business() -> None:
    worker = service(port=None, publish=None, health=None)
    assert site(manifest(api=API, worker=worker), {"api": ["10.207.0.2:8000"]}) == site(
        manifest(api=API), {"api": ["10.207.0.2:8000"]}
    )


def test_a_new_release_changes_the_switch_and_leaves_the_entry_as_it_is() -> None:
    before = site(manifest("a" * 16, api=API), {"api": ["10.207.0.2:8000"]})
    after = site(manifest("b" * 16, api=API), {"api": ["10.207.0.18:8000"]})
    assert before.switch != after.switch
    assert before.entry == after.entry


# --- the entry: names, certificates, limits -----------------------------------------------------------------------


def test_a_service_without_names_is_reached_on_loopback_alone() -> None:
    assert (
        entry(api=API)
        == """\
# Written by slipway, which writes it anew at the next deploy.

(shop/api) {
	@large expression `{header.Content-Length} != "" && int({header.Content-Length}) > 16000000`
	respond @large 413
	request_body {
		max_size 16000000
	}
	import switch 4100
}

http://:4100 {
	bind 127.0.0.1
	import site shop
	import shop/api
}
"""
    )


def block(text: str, address: str) -> str:
    """The lines of one site, without its braces."""
    return text.partition(f"\n{address} {{\n")[2].partition("\n}\n")[0]


def test_a_name_without_tls_is_plain_http() -> None:
    text = entry(api=routed(hosts=["shop.example"]))
    assert "https://" not in text
    assert block(text, "http://shop.example") == "\timport site shop\n\thandle /* {\n\t\timport shop/api\n\t}"


def test_with_tls_plain_http_leads_to_https_and_browsers_are_told_to_insist() -> None:
    text = entry(api=routed(hosts=["shop.example"], tls=Tls(mode="internal")))
    assert block(text, "http://shop.example") == "\timport site shop\n\tredir https://{host}{uri} 308"
    secure = block(text, "https://shop.example")
    assert "tls internal" in secure
    assert 'header Strict-Transport-Security "max-age=31536000"' in secure


def test_hsts_of_nothing_is_not_said() -> None:
    text = entry(api=routed(hosts=["shop.example"], tls=Tls(mode="internal"), hsts=0))
    assert "Strict-Transport-Security" not in text


def test_an_own_certificate_is_read_from_the_edges_folder() -> None:
    text = entry(api=routed(hosts=["shop.example"], tls=Tls(mode="own")))
    assert "tls /etc/caddy/certificates/shop/api.crt /etc/caddy/certificates/shop/api.key" in text


def test_a_renewed_certificate_is_another_entry() -> None:
    own = routed(hosts=["shop.example"], tls=Tls(mode="own"))
    texts = {
        site(manifest(fingerprints={"edge/api.crt": print_ * 64}, api=own), {"api": ["10.207.0.2:8000"]}).entry
        for print_ in ("a", "b")
    }
    assert len(texts) == 2


def test_acme_without_a_server_leaves_the_choice_to_caddy() -> None:
    secure = block(entry(api=routed(hosts=["shop.example"], tls=Tls(mode="acme"))), "https://shop.example")
    assert "tls" not in secure
    mail = Tls(mode="acme", email="ops@shop.example")
    assert "\ttls ops@shop.example" in entry(api=routed(hosts=["shop.example"], tls=mail))


def test_acme_asks_the_server_that_is_named_and_trusts_the_ca_that_is_given() -> None:
    tls = Tls(mode="acme", directory="https://ca.example/acme/directory", email="ops@shop.example", ca="PEM")
    assert """\
	tls {
		issuer acme {
			dir https://ca.example/acme/directory
			email ops@shop.example
			trusted_roots /etc/caddy/certificates/shop/api.ca
		}
	}
""" in entry(api=routed(hosts=["shop.example"], tls=tls))


def test_services_share_a_name_by_path_and_the_longest_pattern_wins() -> None:
    text = entry(
        web=service(publish=4000, route=Route(hosts=["shop.example"])),
        api=service(publish=4100, route=Route(hosts=["shop.example"], paths=["/api/*", "/feed"])),
    )
    lines = [line.strip() for line in block(text, "http://shop.example").splitlines()]
    assert [line for line in lines if line.startswith(("handle", "import shop/"))] == [
        "handle /api/* {",
        "import shop/api",
        "handle /feed {",
        "import shop/api",
        "handle /* {",
        "import shop/web",
    ]
    assert text.count("http://shop.example {") == 1


def test_a_path_that_no_service_takes_is_not_found() -> None:
    text = entry(api=routed(hosts=["shop.example"], paths=["/api/*"]))
    assert block(text, "http://shop.example").endswith("\thandle {\n\t\trespond 404\n\t}")


@pytest.mark.parametrize(
    ("size", "limit"),
    [("5B", 5), ("512kB", 512_000), ("16MB", 16_000_000), ("1MiB", 1_048_576), ("2GiB", 2 * 1024**3)],
)
def test_the_largest_request_is_said_in_bytes(size: str, limit: int) -> None:
    text = entry(api=routed(max_body=size))
    assert f"max_size {limit}\n" in text
    assert f"> {limit}`" in text


# --- an edge tier before the host ---------------------------------------------------------------------------------

TIER = Tier(address="10.0.0.11", edges=("10.0.0.2", "10.0.0.3"))
NAMED = service(route=Route(hosts=["shop.example"], tls=Tls(mode="internal")))


def test_without_a_tier_nothing_of_it_is_in_a_site() -> None:
    upstreams = {"api": ["10.207.0.2:8000"]}
    assert site(manifest(api=NAMED), upstreams) == site(manifest(api=NAMED), upstreams, None, None)
    text = "".join(msgspec.structs.astuple(site(manifest(api=NAMED), upstreams)))
    assert not [word for word in ("remote_ip", "skip_log", "health_uri", "bind 10.") if word in text]


def test_an_app_host_offers_what_has_names_to_the_tier_instead_of_to_the_public() -> None:
    text = site(manifest(api=NAMED), {"api": ["10.207.0.2:8000"]}, None, TIER).entry
    assert (
        text
        == entry(api=API)
        + """
http://:4100 {
	bind 10.0.0.11
	import site shop
	@stranger not remote_ip 10.0.0.2 10.0.0.3
	respond @stranger 403
	@check {
		host 10.0.0.11
		path /ready
	}
	skip_log @check
	@large expression `{header.Content-Length} != "" && int({header.Content-Length}) > 16000000`
	respond @large 413
	request_body {
		max_size 16000000
	}
	reverse_proxy unix//run/caddy/4100.sock {
		header_up X-Forwarded-For {http.request.header.X-Forwarded-For}
		header_up X-Forwarded-Host {http.request.header.X-Forwarded-Host}
		header_up X-Forwarded-Proto {http.request.header.X-Forwarded-Proto}
		lb_try_duration 60s
		lb_try_interval 50ms
		transport http {
			keepalive off
		}
	}
}
"""
    )


def test_what_has_no_names_is_not_the_tiers_business() -> None:
    assert site(manifest(api=API), {"api": ["10.207.0.2:8000"]}, None, TIER).entry == entry(api=API)
    assert balanced(manifest(api=API), ["10.0.0.11"]) == balanced(manifest(), ["10.0.0.11"])


def test_a_switch_is_the_same_with_a_tier_and_without() -> None:
    upstreams = {"api": ["10.207.0.2:8000"]}
    assert (
        site(manifest(api=NAMED), upstreams, CLOSED, TIER).switch == site(manifest(api=NAMED), upstreams, CLOSED).switch
    )


def test_the_tier_has_the_entry_of_a_single_host() -> None:
    assert balanced(manifest(api=NAMED), ["10.0.0.11"]).entry == entry(api=NAMED)


def test_the_tier_sends_requests_to_hosts_that_answer_their_checks() -> None:
    named = service(route=NAMED.route, health=Health(path="/ready?deep=1", status=204, interval=5, timeout=1.5))
    assert (
        balanced(manifest(api=named), ["10.0.0.11", "10.0.0.12"]).switch
        == """\
# Written by slipway, which writes it anew at the next deploy.

http://:4100 {
	bind unix//run/caddy/4100.sock
	reverse_proxy 10.0.0.11:4100 10.0.0.12:4100 {
		import forwarded
		lb_policy round_robin
		lb_try_duration 5s
		lb_try_interval 50ms
		fail_duration 2s
		health_uri /ready?deep=1
		health_interval 5s
		health_timeout 1.5s
		health_status 204
		health_headers {
			X-Forwarded-For 127.0.0.1
			X-Forwarded-Proto http
		}
		transport http {
			dial_timeout 1s
			response_header_timeout 60s
			keepalive off
		}
	}
}
"""
    )


@pytest.mark.parametrize(
    ("hosts", "health", "there", "absent"),
    [
        (["10.0.0.11"], True, ["health_uri"], ["fail_duration"]),
        (["10.0.0.11", "10.0.0.12"], False, ["fail_duration"], ["health_"]),
        ([], True, ["respond 503"], ["reverse_proxy"]),
    ],
)
def test_the_tier_checks_what_it_can(hosts: list[str], health: bool, there: list[str], absent: list[str]) -> None:
    named = service(route=NAMED.route, health=API.health if health else None)
    text = balanced(manifest(api=named), hosts).switch
    assert [word for word in there if word in text] == there
    assert not [word for word in absent if word in text]


@pytest.mark.parametrize(
    ("main", "tier"),
    [
        ("{\n}\n", None),
        ("# tier 10.0.0.11 for 10.0.0.2 10.0.0.3\n{\n}\n", TIER),
        ("# tier 10.0.0.11 for \n{\n}\n", None),
    ],
)
def test_an_app_host_knows_of_a_tier_from_its_main_file(main: str, tier: Tier | None, tmp_path: Path) -> None:
    assert Edge(tmp_path).tier() is None
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "entry.caddyfile").write_text(main)
    assert Edge(tmp_path).tier() == tier


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", ":80", True),
        ("[::]:80", "127.0.0.1:80", True),
        ("10.0.0.11:4100", "127.0.0.1:4100", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
    ],
)
def test_addresses_are_in_each_others_way_or_not(one: str, other: str, overlap: bool) -> None:
    assert _overlap(one, other) is _overlap(other, one) is overlap


# --- maintenance --------------------------------------------------------------------------------------------------


def test_in_maintenance_only_the_health_path_reaches_the_application() -> None:
    text = switch(CLOSED)
    assert text.startswith(f"# release {RELEASE}\n")
    assert "handle /ready {\n\t\treverse_proxy 10.207.0.2:8000 {" in text
    assert "handle {\n\t\theader Retry-After 120\n" in text
    assert "` 503" in text
    assert text.count("reverse_proxy") == 1


def test_a_service_without_a_health_path_is_closed_as_a_whole() -> None:
    text = site(manifest(api=service(health=None)), {"api": ["10.207.0.2:8000"]}, CLOSED).switch
    assert "reverse_proxy" not in text


def test_maintenance_leaves_the_entry_as_it_is() -> None:
    upstreams = {"api": ["10.207.0.2:8000"]}
    assert site(manifest(api=API), upstreams, CLOSED).entry == site(manifest(api=API), upstreams).entry


def test_the_page_says_why_since_when_and_when_to_come_back() -> None:
    text = page(CLOSED)
    assert "The database moves." in text
    assert "Since 2026-11-24 18:00 UTC. Please try again in 2 minutes." in text
    assert "alice" not in text


@pytest.mark.parametrize("reason", ["`", "<script>", "{env.HOME}", "{$HOME}", 'a"b', "}"])
def test_a_reason_is_only_text_to_browsers_and_to_caddy(reason: str) -> None:
    text = page(msgspec.structs.replace(CLOSED, reason=reason))
    assert not set("`{}") & set(text)
    assert "<script" not in text


@pytest.mark.parametrize(("seconds", "said"), [(30, "30 seconds"), (120, "2 minutes"), (3600, "60 minutes")])
def test_the_page_tells_a_time_that_people_use(seconds: int, said: str) -> None:
    assert f"in {said}." in page(msgspec.structs.replace(CLOSED, retry_after=seconds))


# --- the files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> Edge:
    """An edge that was deployed and does not run."""
    folder = tmp_path / "edge"
    folder.mkdir()
    for caddy in ("entry", "switch"):
        (folder / f"{caddy}.caddyfile").write_text("")
    return Edge(tmp_path)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_where_no_edge_was_deployed_nothing_is_written_and_the_error_says_what_to_run(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    assert not edge.exists()
    with pytest.raises(SlipwayError, match=r"no edge on this host\. Run playbooks/edge\.yml"):
        edge.apply("shop", site(manifest(api=API), {"api": ["10.207.0.2:8000"]}))
    edge.remove("shop")
    assert files(tmp_path) == []


@pytest.mark.parametrize("act", [Edge.apply, Edge.agrees])
def test_an_edge_that_does_not_answer_is_said_and_its_files_stay_as_they_were(
    act: Callable[..., object], stopped: Edge, tmp_path: Path
) -> None:
    before = files(tmp_path)
    wanted = site(manifest(api=routed(hosts=["shop.example"])), {"api": ["10.207.0.2:8000"]})
    given = ("shop", wanted, {"api.crt": b"x"}) if act is Edge.apply else ()
    with pytest.raises(SlipwayError, match=r"The edge does not answer .* Start it with playbooks/edge\.yml"):
        act(stopped, *given)
    assert files(tmp_path) == before
    assert stopped.site("shop") is None
    assert stopped.release("shop") is None


def test_a_site_is_removed_while_the_edge_is_stopped_and_other_environments_stay(stopped: Edge, tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    for name in ("shop", "shop-2"):
        wanted = site(manifest(api=routed(hosts=[f"{name}.example"])), {"api": ["10.207.0.2:8000"]})
        for part in ("entry", "switch", "certificates"):
            (folder / part).mkdir(exist_ok=True)
        (folder / "entry" / f"{name}.caddy").write_text(wanted.entry)
        (folder / "switch" / f"{name}.caddy").write_text(wanted.switch)
        (folder / "certificates" / name).mkdir()
        (folder / "certificates" / name / "api.key").write_text("x")
    stopped.remove("shop")
    stopped.remove("shop")
    assert [path for path in files(folder) if "shop" in path] == [
        "certificates/shop-2/api.key",
        "entry/shop-2.caddy",
        "switch/shop-2.caddy",
    ]
    assert (stopped.release("shop"), stopped.release("shop-2")) == (None, RELEASE)
    assert (folder / "entry" / "_unknown.caddy").read_text() == "http:// {\n\trespond 404\n}\n"
    stopped.remove("shop-2")
    assert not (folder / "entry" / "_unknown.caddy").exists()


def test_what_a_release_gives_the_edge_to_read_lies_in_its_folder(tmp_path: Path) -> None:
    assert certificates(tmp_path) == {}
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "api.key").write_bytes(b"key")
    assert certificates(tmp_path) == {"api.key": b"key"}
