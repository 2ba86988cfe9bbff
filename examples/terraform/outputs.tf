output "urls" {
  description = "What TierSettings take: transient, coordination and cache."
  value = {
    for name, group in aws_elasticache_replication_group.this : name => format(
      "valkeys://%s:%d?durability=%s",
      group.configuration_endpoint_address,
      group.port,
      local.clusters[name].durability,
    )
  }
}

output "replication_group_ids" {
  description = "What aws_replication_group takes, so that the durability in force is asked for."
  value       = { for name, group in aws_elasticache_replication_group.this : name => group.replication_group_id }
}
