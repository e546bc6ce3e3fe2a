"""Applies both examples to an emulator of AWS (moto), plans them again, and destroys them.

What moto refuses, and the differences that it invents, stand here by name; anything else fails, and
so does a name that is not needed any more. infra/test.sh installs moto and starts this.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PORT = "5995"
ENDPOINT = f"http://127.0.0.1:{PORT}"

# Its tags cannot be listed (ListTagsForResource is not there), so it counts as not made.
REFUSED = {"module.worker.aws_appautoscaling_target.worker"}

# What needs one of those, and is never tried.
NOT_REACHED = {"module.worker.aws_appautoscaling_policy.lag"}

# Attributes that moto forgets.
FORGOTTEN = {("module.worker.aws_ecs_service.worker", "availability_zone_rebalancing")}

EXAMPLES = {
    "ecs": {
        "variables": {"image_tag": "1"},
        "refused": REFUSED,
        "not_reached": NOT_REACHED,
        "forgotten": FORGOTTEN,
    },
    "lambda": {
        "variables": {"package": "bootstrap.zip"},
        "refused": set(),
        "not_reached": set(),
        "forgotten": set(),
    },
}

SHARED = {
    "mail_from": "Shop <orders@example.com>",
    "smtp_url": "smtps://user@mail.example.com",
    "deletion_protection": "false",
}

# Laid over an example: an account that nobody has. With more retries a refusal takes minutes.
PROVIDER = """
provider "aws" {
  access_key                  = "test"
  secret_key                  = "test"
  max_retries                 = 2
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}
"""

# Moto knows no endpoint of the streams: it is asked for the zones of another.
NETWORK = """
data "aws_vpc_endpoint_service" "streams" {
  service = "logs"
}
"""


def environment():
    """This process's own, with the emulator for AWS."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return kept | {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def say(text):
    print(f"infra: {text}", file=sys.stderr, flush=True)


def check(what, found, expected):
    """Fails with both sides by name."""
    unexpected, missing = found - expected, expected - found
    if unexpected or missing:
        sys.exit(
            f"infra: {what}: not expected {sorted(unexpected)}, expected in vain {sorted(missing)}"
        )


class Example:
    def __init__(self, name, folder):
        self.name = name
        self.folder = folder
        self.knows = EXAMPLES[name]
        variables = SHARED | self.knows["variables"]
        self.variables = [f"-var={key}={value}" for key, value in variables.items()]
        (folder / "emulator_override.tf").write_text(PROVIDER)

    def terraform(self, *arguments):
        return subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )

    def apply(self):
        done = self.terraform("apply", "-json", "-auto-approve", *self.variables)
        failed = {}
        for line in done.stdout.splitlines():
            told = json.loads(line).get("diagnostic", {})
            if told.get("severity") == "error":
                failed[told.get("address", "")] = told["summary"]
        for address in failed.keys() - self.knows["refused"]:
            say(f"{self.name}: {address}: {failed[address]}")
        check(f"{self.name}: apply was refused", set(failed), self.knows["refused"])
        if (done.returncode == 0) != (not failed):
            sys.exit(f"infra: {self.name}: apply ended with {done.returncode}")
        for address in failed:
            self.succeed("state", "rm", address)

    def plan_again(self):
        self.succeed("plan", "-out=second", *self.variables)
        plan = json.loads(self.succeed("show", "-json", "second"))
        created, changed = set(), set()
        for resource in plan["resource_changes"]:
            address, change = resource["address"], resource["change"]
            if change["actions"] == ["create"]:
                created.add(address)
            elif change["actions"] != ["no-op"]:
                before, after = change["before"] or {}, change["after"] or {}
                names = before.keys() | after.keys()
                changed |= {(address, n) for n in names if before.get(n) != after.get(n)}
        missing = self.knows["refused"] | self.knows["not_reached"]
        check(f"{self.name}: a second plan creates", created, missing)
        check(f"{self.name}: a second plan changes", changed, self.knows["forgotten"])
        return len(plan["resource_changes"])

    def destroy(self):
        self.succeed("destroy", "-auto-approve", *self.variables)
        left = self.succeed("state", "list").split()
        check(f"{self.name}: destroy left", set(left), set())

    def succeed(self, *arguments):
        done = self.terraform(*arguments)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\ninfra: {self.name}: terraform {arguments[0]} failed")
        return done.stdout


def tables_are_as_the_command_makes_them(command):
    """`tables create` refuses other keys and another time to live, and adds an index that is missing."""
    tables = ["aftercommit-dead-letters", "aftercommit-leases", "aftercommit-ledger"]
    more = ["--suppression-table", "aftercommit-suppression", "--with-orders"]
    done = subprocess.run(
        [command, "tables", "create", *more],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(f"infra: `tables create` refuses a table of the module: {done.stdout}")
    expected = {f"{name}: exists" for name in [*tables, "aftercommit-suppression", "orders"]}
    check("`tables create` on the module's tables", set(done.stdout.splitlines()), expected)


def main(home, command):
    log = open(home / "moto.log", "w")
    emulator = subprocess.Popen(
        [home / "moto/bin/moto_server", "-H", "127.0.0.1", "-p", PORT],
        env=environment(),
        stdout=log,
        stderr=log,
    )
    try:
        wait_for(emulator)
        (home / "tree/modules/network/emulator_override.tf").write_text(NETWORK)
        for name in EXAMPLES:
            began = time.monotonic()
            reset = urllib.request.Request(f"{ENDPOINT}/moto-api/reset", method="POST")
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(reset)
            example = Example(name, home / "tree/examples" / name)
            (example.folder / "bootstrap.zip").write_bytes(b"PK\5\6" + bytes(18))
            example.apply()
            # Before the plan, which would see what it adds.
            tables_are_as_the_command_makes_them(command)
            resources = example.plan_again()
            example.destroy()
            took = time.monotonic() - began
            say(f"{name}: {resources} resources applied, planned again, destroyed in {took:.0f} s")
    finally:
        emulator.terminate()
        emulator.wait()


def wait_for(emulator):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(120):
        if emulator.poll() is not None:
            sys.exit("infra: moto ended: see moto.log; is its port in use?")
        try:
            return opener.open(f"{ENDPOINT}/moto-api/data.json")
        except OSError:
            time.sleep(0.5)
    sys.exit("infra: moto does not answer")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
