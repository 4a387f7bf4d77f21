"""Notices that an encrypted VM's wrapping key was changed, before a raw increment carries that over.

A raw increment brings the source's wrapped master key along: from then on every version of the replica, the
older ones too, opens with the new key only (seen on OpenZFS 2.3.9). Whoever still has only the old one would
be locked out of the backups, so it is refused until somebody says that it may be.
"""

from __future__ import annotations

from hoster.errors import OperationFailed
from hoster.model.plan import Ground, Refusal
from hoster.operations.job import Job, Passage
from hoster.zfs.store import ZfsStore
from hoster.zfs.streams import key_digest


def check_key(source: ZfsStore, target: ZfsStore, job: Job, passage: Passage) -> str | Refusal:
    """The digest of the key that the streams of ``passage`` bring along, or why they must not be sent."""
    digest = key_digest(source.stream_head(passage.sends[0]))
    if digest is None:
        raise OperationFailed(f"the raw stream of {passage.source.name} shows no key, which cannot be true")
    replica = passage.replica
    if replica is None:
        return digest
    before = replica.marks.key_digest
    if before is None:
        target.set_properties({"hoster:key": digest}, [replica.name])
    elif before != digest:
        accept = job.site.there("zfs", "set", f"hoster:key={digest}", replica.name)
        newest = f" since {replica.newest.name} was sent" if replica.newest else ""
        return Refusal(
            job.vm.name,
            Ground.KEY_CHANGED,
            f"the wrapping key of {passage.source.name} was changed{newest}: with the next increment all"
            f" versions on {job.site.node}, older ones too, would open with the new key only",
            f"{accept}    (if the new key is kept safe)",
        )
    return digest
