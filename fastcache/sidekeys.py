"""The names that a two-level cache uses in Redis beside those of its values: guards, tokens and channels.

None of them begins like a value's name, so that who watches or scans the values (`prefix:*`) never meets one. A guard is in
the same slot of a cluster as its value, whatever braces the key has. This file must never talk to Redis.
"""

from __future__ import annotations

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from fastcache.keys import escape_glob

__all__ = ["ANCHORS", "Names", "beat_name", "guard_name", "guard_patterns", "shard_tag", "value_name"]

_GUARD = b"fastcache-guard:"
_TOKEN = b"fastcache-token:"
_CHANNEL = b"fastcache-news:"
_BEAT = b"fastcache-beat:"

ANCHORS = tuple(range(0, REDIS_CLUSTER_HASH_SLOTS, REDIS_CLUSTER_HASH_SLOTS // 16))
"""The slots whose shard channels carry the messages of a cluster. Publishing on a shard channel must go through the node
that holds its slot; with sixteen of them, evenly spread, each primary of a usual cluster holds one. (Where one holds none,
the message goes out on the plain channel.)"""

_tags: dict[int, bytes] = {}  # a text for each slot that was needed, and for those found on the way
_searched = 0


def shard_tag(slot: int) -> bytes:
    """The smallest decimal number whose hash slot this is. At most some 0.2 s in a process, for all slots together."""
    global _searched
    while slot not in _tags:
        text = b"%d" % _searched
        _tags.setdefault(key_slot(text), text)
        _searched += 1
    return _tags[slot]


def beat_name(slot: int) -> bytes:
    """A name in a slot under which there is never anything: asked for to learn whether a node has the slot."""
    return b"%b{%b}" % (_BEAT, shard_tag(slot))


def _has_tag(name: bytes) -> bool:
    """Whether a part of a name in braces decides its slot: what is between the first `{` and the next `}`, if anything."""
    start = name.find(b"{")
    return start >= 0 and name.find(b"}", start + 1) > start + 1


def guard_name(name: bytes) -> bytes:
    """The guard of a value. O(length), but see `shard_tag` for a name with a `}` and no tag."""
    if _has_tag(name):
        return _GUARD + name
    if b"}" not in name:
        return b"%b{%b}" % (_GUARD, name)
    return b"%b{%b}%b" % (_GUARD, shard_tag(key_slot(name)), name)


def guard_patterns(pattern: bytes) -> list[bytes]:
    """The patterns of the guards of all values whose names match one: guards of other values may match them, too."""
    return [_GUARD + pattern, _GUARD + b"{" + pattern + b"}", _GUARD + b"{*}" + pattern]


def value_name(guard: bytes) -> bytes:
    """Whose guard it is: the inverse of `guard_name`."""
    rest = guard[len(_GUARD) :]
    if rest.startswith(b"{"):
        inner, _, after = rest[1:].partition(b"}")
        for name in (inner, after):
            if guard_name(name) == guard:
                return name
    return rest


class Names:
    """The names that belong to one prefix: `prefix` is that of the values, with its colon; `db` the number of the database,
    since channels belong to none.
    """

    def __init__(self, prefix: bytes, db: int) -> None:
        self.prefix = prefix
        self.token_prefix = _TOKEN + prefix
        """Of all tokens; the name of the namespace's own is the prefix alone."""
        self.channel = b"%b%d:%b" % (_CHANNEL, db, prefix)

    def token(self, tag: bytes) -> bytes:
        """The name of a tag's token; the empty tag stands for the whole namespace."""
        return self.token_prefix + tag

    def tag(self, token_name: bytes) -> bytes:
        return token_name[len(self.token_prefix) :]

    def shard_channel(self, anchor: int) -> bytes:
        return b"%b{%b}%b" % (_CHANNEL, shard_tag(anchor), self.prefix)

    def matching(self, glob: bytes) -> bytes:
        """The pattern of values' names for a pattern of keys."""
        return escape_glob(self.prefix.decode()).encode() + glob
