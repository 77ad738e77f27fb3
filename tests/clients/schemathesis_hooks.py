"""What schemathesis is to leave alone: calls that are held would only cost time."""

import schemathesis

HOLDS = ("waitMs", "holdMs")


def shorten(fields):
    if isinstance(fields, dict):
        for name in HOLDS:
            if isinstance(fields.get(name), int) and fields[name] > 0:
                fields[name] = 0


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if isinstance(body, dict):
        for part in (body, body.get("lease"), body.get("heartbeat")):
            shorten(part)
    query = case.query
    if isinstance(query, dict):
        # Held for as long as possible when it does not say how long.
        is_wait = case.path.endswith("/wait")
        if str(query.get("waitMs", "1" if is_wait else "")).isdigit():
            query["waitMs"] = "0"
        if str(query.get("follow")).lower() == "true":
            query["follow"] = "false"
