"""What keeps a stale entry from being served, also after a failover.

The truth about versions of documents is in the primary store. Each partition has a copy,
since a lookup must not wait for two servers; a failover may lose what was written to that
copy last. So a primary of Valkey serves only once the copy was written anew for it, and a
process serves from it only while the primary store says that it is the one.
"""
