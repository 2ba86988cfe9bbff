# The log of a durable cluster is watched node by node: a sample a minute, enough to call
# somebody, too coarse to decide anything by.

locals {
  durable = { for name, cluster in local.clusters : name => cluster if cluster.durability != "disabled" }

  # ElastiCache numbers nodes by shard and place: name-0001-001.
  nodes = toset(flatten([
    for name, cluster in local.durable : [
      for shard in range(1, cluster.shards + 1) : [
        for node in range(1, var.replicas + 2) :
        format("%s-%s-%04d-%03d", var.name, name, shard, node)
      ]
    ]
  ]))
}

resource "aws_cloudwatch_metric_alarm" "lag" {
  for_each = local.nodes

  alarm_name          = "${each.key}-durability-lag"
  alarm_description   = "The durable log is behind. At 10 s this shard refuses writes, and a crash now loses what is behind."
  namespace           = "AWS/ElastiCache"
  metric_name         = "DurabilityLag"
  statistic           = "Maximum"
  unit                = "Milliseconds"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.lag_alarm_ms
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching" # A replica has no lag of its own.
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dimensions = {
    CacheClusterId = each.key
    CacheNodeId    = "0001"
  }

  depends_on = [aws_elasticache_replication_group.this]
}

resource "aws_cloudwatch_metric_alarm" "refused" {
  for_each = local.nodes

  alarm_name          = "${each.key}-writes-refused"
  alarm_description   = "This shard refuses writes, since its durable log is more than 10 s behind. Agents wait and try again."
  namespace           = "AWS/ElastiCache"
  metric_name         = "DurabilityBufferExceededErrorCount"
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions

  dimensions = {
    CacheClusterId = each.key
    CacheNodeId    = "0001"
  }

  depends_on = [aws_elasticache_replication_group.this]
}
