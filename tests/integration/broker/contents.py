"""All that a Redis holds, to look for what must not be in it."""

from __future__ import annotations

import base64
import json

import redis


def everything_in(client: redis.Redis) -> list[str]:
    """Every key and value as text, message bodies decoded too.

    Parameters
    ----------
    client : redis.Redis
        One that decodes its responses.
    """
    return [piece for key in client.scan_iter() for piece in (key, *_values(client, key))]


def _values(client: redis.Redis, key: str) -> list[str]:
    match client.type(key):
        case "list":
            raws = client.lrange(key, 0, -1)
            return raws + [base64.b64decode(json.loads(raw)["body"]).decode() for raw in raws if raw.startswith("{")]
        case "set":
            return list(client.smembers(key))
        case "hash":
            return [part for pair in client.hgetall(key).items() for part in pair]
        case "zset":
            return list(client.zrange(key, 0, -1))
        case kind:
            assert kind == "string", kind
            return [client.get(key)]
