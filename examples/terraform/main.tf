# The clusters of langgraph-valkey, one for each kind of state:
#
#   checkpoints    async durability: fast, may lose up to 10 s of writes, which are replayed
#   coordination   sync durability: locks, of which nothing acknowledged may be lost
#   cache          no durability: what can be computed again, and is evicted when it is full
#
# Commits belong into a database, which is not made here.

locals {
  clusters = {
    checkpoints = {
      description = "Checkpoints and pending writes of agents"
      durability  = "async"
      eviction    = "noeviction" # An evicted key would be a hole in a thread.
      shards      = var.shards
    }
    coordination = {
      description = "Locks of agents"
      durability  = "sync"
      eviction    = "noeviction"
      shards      = 1
    }
    cache = {
      description = "The semantic cache of agents"
      durability  = "disabled"
      eviction    = "allkeys-lru"
      shards      = 1
    }
  }
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Where agents' clusters live"
  subnet_ids  = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "this" {
  for_each = local.clusters

  name        = "${var.name}-${each.key}"
  family      = "valkey9"
  description = each.value.description

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }

  parameter {
    name  = "maxmemory-policy"
    value = each.value.eviction
  }
}

resource "aws_elasticache_replication_group" "this" {
  for_each = local.clusters

  replication_group_id = "${var.name}-${each.key}"
  description          = each.value.description

  engine               = "valkey"
  engine_version       = var.engine_version
  node_type            = var.node_type
  port                 = 6379
  parameter_group_name = aws_elasticache_parameter_group.this[each.key].name

  cluster_mode            = "enabled"
  num_node_groups         = each.value.shards
  replicas_per_node_group = var.replicas
  durability              = each.value.durability

  automatic_failover_enabled = true
  multi_az_enabled           = true

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true

  subnet_group_name  = aws_elasticache_subnet_group.this.name
  security_group_ids = var.security_group_ids
  user_group_ids     = var.user_group_ids

  apply_immediately          = true
  auto_minor_version_upgrade = true
}
