"""One call of the `slipway` engine on a host, for the thin action plugins in plugins/action/.

The engine is a program on the host, reached the way an operator reaches it: `slipway <verb> --json`, with the request
on stdin. No module is shipped for that and no Python of Ansible's runs there, which takes 0.2 s less per call. Nothing
of the request is in a command line, on a disk or in what Ansible shows.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

ENGINE = "/opt/slipway/venv/bin/slipway"
ENVIRONMENTS = "/srv/slipway"
PROTOCOL = 1
USAGE = 64
NO_ENGINE, BARE = 120, 121
"""Exit codes of the shell when there is no engine: with environments on the host, and without."""
NOT_RUN = (126, 127)
"""Exit codes of the shell when what should run cannot be run."""
STRANGE = ("Use the kit and the engine of one version.", "See slipway --help.")
"""What engines of every version tell to do about a verb or a request that they do not know."""
PASSWORD = re.compile(r"(?P<how>Incorrect|Missing) (?P<program>\w+) password")
VALIDATED = ("type", "required", "default", "choices", "elements")
MODULES = Path(__file__).parent / "modules"

Answer = dict[str, Any]


class EngineAction(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """What the thin action plugins share: a plugin says in :meth:`call` which call its options stand for.

    The options are those of the DOCUMENTATION of the module of the same name.
    """

    _requires_connection = True
    required_if: ClassVar[Sequence[tuple[str, str, list[str]]]] = ()

    def call(self, given: Mapping[str, Any]) -> Answer:
        """Do what the options say, through :meth:`engine`, and give the task's result."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> Answer:
        super().run(tmp, task_vars)
        spec = _argument_spec(options_of(self._task.action))
        _, given = self.validate_argument_spec(spec, required_if=list(self.required_if))
        return self.call(given)

    @property
    def check(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self._task.check_mode)

    def engine(self, verb: str, *arguments: str, bare_is_fine: bool = False, **request: object) -> Answer:
        """Run `slipway <verb> --json` with the request on stdin, or with arguments as people give them.

        A host without an engine is an error, except in check mode: there the engine would have been installed by the
        tasks before, so the answer says that nothing more can be foretold. `bare_is_fine` is for stopping and
        removing: a host that has neither engine nor environments is as declared. Raises AnsibleActionFail.
        """
        payload = json.dumps({"protocol": PROTOCOL, "check": self.check, **request})
        if arguments and self.check:
            arguments = ("--check", *arguments)
        command = shlex.join([ENGINE, verb, "--json", *arguments])
        with become_refused():
            done = self._low_level_execute_command(
                f"[ -x {ENGINE} ] && exec {command}; [ -e {ENVIRONMENTS} ] && exit {NO_ENGINE}; exit {BARE}",
                in_data=payload.encode(),
            )
        code = int(done["rc"])
        if code in (NO_ENGINE, BARE):
            return self._without_engine(verb, fine=bare_is_fine and code == BARE)
        if code in NOT_RUN:
            raise AnsibleActionFail(
                f"The engine at {ENGINE} does not run: its Python is gone. Install it (apt-get install -y python3), "
                "and run playbooks/provision.yml for this host.",
                result={"rc": code, "stderr": done["stderr"]},
            )
        try:
            answer: Answer = json.loads(done["stdout"])
        except ValueError:
            raise AnsibleActionFail(
                f"The engine broke off while it ran `{verb}`. Read its last words below, then run the play again.",
                result={"rc": code, "stderr": done["stderr"]},
            ) from None
        return self._understood(verb, answer)

    def _without_engine(self, verb: str, *, fine: bool) -> Answer:
        if fine:
            return {"changed": False}
        if self.check:
            return {"changed": True, "msg": f"The engine is not installed yet, so `{verb}` cannot be planned further."}
        raise AnsibleActionFail(f"There is no engine at {ENGINE}. Run playbooks/provision.yml for this host.")

    def _understood(self, verb: str, answer: Answer) -> Answer:
        if answer.get("protocol") != PROTOCOL:
            raise AnsibleActionFail(
                f"The engine speaks protocol {answer.get('protocol')}, this kit speaks {PROTOCOL}. "
                "Run playbooks/provision.yml for this host."
            )
        if answer["ok"]:
            return answer
        if answer["exit"] == USAGE and self.check:
            # An engine that does not know the request is one that the real run replaces first.
            return {"changed": True, "msg": f"The engine will be replaced, so `{verb}` cannot be planned further."}
        if answer["do_next"] in STRANGE:
            raise AnsibleActionFail(
                f"The engine of this host is not that of this kit: it does not understand `{verb}`. "
                "Run playbooks/provision.yml for this host.",
                result={"details": answer["what"], "exit": answer["exit"]},
            )
        told = {"details": answer["details"], "exit": answer["exit"], "serves": answer.get("serves")}
        raise AnsibleActionFail(f"{answer['what']} {answer['do_next']}", result=told)


@contextlib.contextmanager
def become_refused() -> Iterator[None]:
    """Say what to do where a host does not take the password of whoever logs in."""
    try:
        yield
    except AnsibleConnectionFailure:
        raise
    except AnsibleError as error:
        if refused := PASSWORD.search(str(error)):
            why = "does not take the password" if refused["how"] == "Incorrect" else "wants a password"
            raise AnsibleActionFail(
                f"The kit cannot look at this host as root: {refused['program']} {why}. "
                "Give the right one with --ask-become-pass, or as ansible_become_password from the vault."
            ) from None
        raise


def options_of(module: str) -> dict[str, Any]:
    """The options that a module of this folder documents, by their name."""
    tree = ast.parse((MODULES / f"{module}.py").read_text())
    documented = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION"
    )
    options: dict[str, Any] = yaml.safe_load(next(documented))["options"]
    return options


def diffs(answer: Answer) -> list[dict[str, str]]:
    """The files that a stack has changed, as Ansible shows them."""
    return [
        {"before_header": file["path"], "after_header": file["path"], "before": file["before"], "after": file["after"]}
        for file in answer.get("diff", [])
    ]


def _argument_spec(options: Mapping[str, Any]) -> dict[str, Any]:
    """The documentation's options as Ansible's validation wants them."""
    spec = {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in VALIDATED if key in option}
        if "suboptions" in option:
            spec[name]["options"] = _argument_spec(option["suboptions"])
    return spec
