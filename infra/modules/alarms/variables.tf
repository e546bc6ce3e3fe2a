variable "name" {
  description = "What the alarms' names begin with, and the dashboard's name"
  type        = string
  default     = "aftercommit"
}

variable "table" {
  description = "The name of the table of orders, a dimension of the metrics"
  type        = string
}

variable "group" {
  description = "The group that is watched, a dimension of the metrics"
  type        = string
  default     = "confirmation"
}

variable "effect" {
  description = "The effect that is watched, a dimension of the metrics"
  type        = string
  default     = "confirmation"
}

variable "actions" {
  description = "Actions when an alarm begins and ends: ARNs, such as that of an SNS topic"
  type        = list(string)
  default     = []
}

variable "runbook" {
  description = "Where infra/RUNBOOK.md can be read: an alarm's description names its paragraph there"
  type        = string
  default     = "infra/RUNBOOK.md"
}

variable "lag_seconds" {
  description = "Orders that wait for longer are an alarm"
  type        = number
  default     = 300
}

variable "until_trim_seconds" {
  description = "Records nearer to leaving the stream unread are an alarm; 4 hours before, the worker writes them down as dead letters"
  type        = number
  default     = 21600
}

variable "lambda" {
  description = "On Lambda: the outputs of `worker-lambda`. It has no heartbeat and sees no gaps; it has an age of its own, polls, and a queue of what was given up"
  type        = object({ function_name = string, event_source_mapping_uuid = string, given_up_queue_name = string })
  default     = null
}
