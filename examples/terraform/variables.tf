variable "name" {
  description = "What all names begin with: lower-case letters, digits and hyphens, at most 28 characters."
  type        = string
  default     = "agents"
}

variable "subnet_ids" {
  description = "Private subnets, in two availability zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Durability needs Multi-AZ: name subnets of two availability zones at least."
  }
}

variable "security_group_ids" {
  description = "Security groups that let the agents in at port 6379."
  type        = list(string)
}

variable "engine_version" {
  description = "Durability needs Valkey 9.0 or newer."
  type        = string
  default     = "9.0"
}

variable "node_type" {
  description = "Type of each node."
  type        = string
  default     = "cache.r7g.large"
}

variable "shards" {
  description = "Shards of the cluster for checkpoints."
  type        = number
  default     = 3
}

variable "replicas" {
  description = "Replicas of each shard; a durable cluster needs one at least."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 1 && var.replicas <= 5
    error_message = "A durable shard has 1 to 5 replicas."
  }
}

variable "user_group_ids" {
  description = "ACL user groups, for IAM or passwords; one at most."
  type        = list(string)
  default     = null
}

variable "alarm_actions" {
  description = "Whom alarms tell: ARNs of SNS topics."
  type        = list(string)
  default     = []
}

variable "lag_alarm_ms" {
  description = "From which DurabilityLag on somebody is told: writes are refused from 10,000 ms on."
  type        = number
  default     = 5000
}
