"""Changes what schemathesis is about to send, so that it gets beyond the first check.

It can't know what there is in the shop, so it asks for ids that nobody has; and it sends most requests under one idempotency key, so
all but the first would be refused for that.
"""

import itertools
import json
import os
import re

import schemathesis

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Room is left for what is added to a key.
VISIBLE = re.compile(r"[!-~]{1,240}")
TAG = re.compile(r'"[0-9]+"')

with open(os.environ["ORDERMILL_THINGS"], encoding="utf-8") as file:
    # The ids that there are, by the name of a parameter or a member, or by that of an operation and it. Those at the same place
    # belong together.
    THINGS = json.load(file)
# Every id that there is or that an answer has named.
named = set(itertools.chain.from_iterable(THINGS.values()))
turns = itertools.count()


def existing(operation, name, value, place):
    """An id that nobody has named becomes one that there is of that name."""
    ids = THINGS.get(f"{operation}.{name}") or THINGS.get(name)
    if not ids or not isinstance(value, str) or not UUID.fullmatch(value) or value in named:
        return value
    return ids[place % len(ids)]


def with_existing_ids(operation, value, place, name=None):
    """The same for all that a body has in it; the items of a list get different ones."""
    if isinstance(value, dict):
        return {member: with_existing_ids(operation, inner, place, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [with_existing_ids(operation, inner, place + index, name) for index, inner in enumerate(value)]
    return existing(operation, name, value, place)


@schemathesis.hook
def before_call(context, case, kwargs):
    turn = next(turns)
    operation = case.operation.definition.raw["operationId"]
    path, query, headers = case.path_parameters or {}, case.query or {}, case.headers or {}
    # Every eighth stays as it is: what there is not is asked for as well, and what was sent is sent again under its key.
    if turn % 8 != 7:
        for parameters in (path, query):
            for name, value in parameters.items():
                parameters[name] = existing(operation, name, value, turn)
        if isinstance(case.body, (dict, list)):
            case.body = with_existing_ids(operation, case.body, turn)
        key = headers.get("Idempotency-Key")
        if isinstance(key, str) and VISIBLE.fullmatch(key):
            headers["Idempotency-Key"] = f"{key}-{turn}"
    # Whoever the rest is about is not erased.
    if case.method == "DELETE" and path.get("user_id") in THINGS["user_id"]:
        path["user_id"] = THINGS["erase_user.user_id"][turn % len(THINGS["erase_user.user_id"])]
    # Nothing is waited for any longer.
    if str(headers.get("Prefer")).startswith("wait="):
        headers["Prefer"] = "wait=1"
    # Which version an order is at by now nobody knows.
    if TAG.fullmatch(str(headers.get("If-Match"))) and turn % 2:
        headers["If-Match"] = "*"


@schemathesis.hook
def after_call(context, case, response):
    if "json" in str(response.headers.get("content-type")):
        named.update(UUID.findall(response.text))
