# Thin: each target is one command that can be typed as well.
PYTHON ?= python3
PLAY = .venv/bin/ansible-playbook -i inventories/local $(BECOME)
# Ansible would go by $USER, which need not say root where root is at work.
BECOME = $(shell if [ "$$(id -u)" = 0 ]; then printf '%s' '-e ansible_become=false'; \
	elif ! sudo -n true 2>/dev/null; then echo --ask-become-pass; fi)

# Tests and measurements talk to Docker and read what only root may.
AS_ROOT = $(shell [ "$$(id -u)" = 0 ] && echo env USER=root LOGNAME=root || echo sudo -E)

LAB = $(AS_ROOT) .venv/bin/python -m lab
NAMED = $(if $(name),--name $(name))

env ?= local

.PHONY: up down destroy lab lab-down verify test test-long faults bench fresh test-vm docs lock

up: | root .venv/controller ## turn this machine into a running, verified backend
	$(PLAY) playbooks/site.yml

down: | root .venv/controller ## stop it; data stays
	$(PLAY) playbooks/stop.yml

destroy: | root .venv/controller ## remove what the kit put here, data included, Docker excepted (asks; yes=1 does not)
	$(PLAY) playbooks/destroy.yml $(if $(yes),-e destroy_confirm=semiont-local)
	rm -rf inventories/local/.secrets inventories/local/images.lock.yml

lab: | root .venv/controller ## start hosts in containers to try things on (hosts=3, hosts="app1 edge1 registry", bare=1, name=mine)
	@$(LAB) up $(if $(bare),--no-engine) $(NAMED) $(hosts)

lab-down: | root .venv/controller ## remove them with all they hold (name=mine)
	@$(LAB) down $(NAMED)

verify: | known .venv/dev ## test an environment's hosts as they stand, and change nothing there (env=production)
	@PATH=$(CURDIR)/.venv/bin:$$PATH ANSIBLE_INVENTORY=inventories/$(env) \
		.venv/bin/pytest -v -c molecule/shared/pytest.ini molecule/shared/verify

test: | root .venv/dev ## lint, unit, backend, engine and molecule tests (tests=tests/test_plan.py for some of them)
	$(PLAY) tests/setup.yml
ifdef tests
	$(AS_ROOT) .venv/bin/pytest $(tests)
else
	$(AS_ROOT) .venv/bin/pytest -m core
	$(AS_ROOT) .venv/bin/pytest -m 'not faults and not long' --numprocesses 2
endif

test-long: | root .venv/dev ## what make test leaves out: each example, backups and restores, the bundled database, Debian 12, a hardened host
	$(PLAY) tests/setup.yml
	$(AS_ROOT) .venv/bin/pytest -m long --numprocesses 2

faults: | root .venv/dev ## kill, break and starve a deploy under load, in every way that the kit promises to stand
	$(PLAY) tests/setup.yml
	$(AS_ROOT) .venv/bin/pytest -m faults $(or $(tests),tests/faults)

bench: | root .venv/dev ## measure, as a table with ratios against bare docker compose (fresh=1, only=here, ssh, fleet or kept)
	$(PLAY) tests/setup.yml
	$(AS_ROOT) .venv/bin/python -m tests.bench.bench $(if $(fresh),--fresh) $(if $(only),--only $(only))

test-vm: | root .venv/controller ## provision a real Debian 13 VM with a kernel of its own; a quarter of an hour
	@$(AS_ROOT) .venv/bin/python -m lab.vm

fresh: | root .venv/dev ## try the README on fresh Debian machines; minutes each
	$(PLAY) playbooks/provision.yml
	$(AS_ROOT) .venv/bin/pytest tests/fresh

docs: .venv/controller ## write each role's README from what its argument specs say
	.venv/bin/python docs/generate.py

lock: .venv/dev ## compile the pinned requirements anew from pyproject.toml
	.venv/bin/uv pip compile -q $(LOCK) pyproject.toml -o requirements-engine.txt
	.venv/bin/uv pip compile -q $(LOCK) -c requirements-engine.txt --extra controller pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile -q $(LOCK) -c requirements.txt -c app/requirements.txt --extra controller --extra dev \
		pyproject.toml -o requirements-dev.txt
LOCK = --generate-hashes --universal --python-version 3.11 --no-header

.venv/controller: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Slipway needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS).' >&2; exit 1; }
	@$(PYTHON) -m venv .venv >/dev/null \
		|| { echo 'Python has no venv module here. Install it: apt-get install -y python3-venv.' >&2; exit 1; }
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/dev: .venv/controller requirements-dev.txt app/requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt -r app/requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable app
	@touch $@

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null \
		|| { echo 'This needs root. Run it as root, or install sudo and give this user the right to use it.' >&2; exit 1; }

.PHONY: known
known:
	@[ -f 'inventories/$(env)/hosts.yml' ] \
		|| { echo 'There is no environment $(env). There are: $(subst $(space),$(comma) ,$(strip $(ENVIRONMENTS))).' >&2; exit 1; }
ENVIRONMENTS = $(patsubst inventories/%/hosts.yml,%,$(sort $(wildcard inventories/*/hosts.yml)))
comma = ,
space = $() $()
