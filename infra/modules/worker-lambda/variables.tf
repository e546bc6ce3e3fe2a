variable "name" {
  description = "The function's name, and what its resources' names begin with"
  type        = string
  default     = "aftercommit"
}

variable "confirmation" {
  description = "The output of the module `confirmation`"
  type = object({
    orders      = object({ name = string, arn = string, stream_arn = string })
    tables      = map(object({ name = string, arn = string }))
    group       = string
    effect      = string
    filter      = string
    environment = map(string)
    policy      = string
  })
}

variable "package" {
  description = "The zip file with the binary, named `bootstrap`"
  type        = string
}

variable "architecture" {
  description = "`x86_64` or `arm64`: what the binary was built for"
  type        = string
  default     = "x86_64"
}

variable "memory" {
  description = "Of the function, in MB; its share of a CPU grows with it"
  type        = number
  default     = 256
}

variable "timeout" {
  description = "How long one call may take, in seconds: 30 to 900. In its last 10 s nothing is begun"
  type        = number
  default     = 300

  validation {
    condition     = var.timeout >= 30 && var.timeout <= 900
    error_message = "A call needs 30 s at least: in its last 10 s nothing is begun. 900 s is what Lambda allows."
  }
}

variable "concurrency" {
  description = "Calls at once that are set aside for the function, and its limit; -1: the account's share"
  type        = number
  default     = -1
}

variable "enabled" {
  description = "Whether the function is fed; false while ECS does the work"
  type        = bool
  default     = true
}

variable "starting_position" {
  description = "Where a new mapping begins. `LATEST` may miss records that come while it is made or changed; what was confirmed before is in the ledger, and not confirmed again"
  type        = string
  default     = "TRIM_HORIZON"
}

variable "earlier_streams" {
  description = "ARNs of streams that the table had before and that may still hold unread records, after the stream was switched off and on. Remove one 24 hours after it was switched off"
  type        = list(string)
  default     = []
}

variable "batch_size" {
  description = "Records in one call at most"
  type        = number
  default     = 25
}

variable "parallelization_factor" {
  description = "Calls at once for one shard; the order of each item holds"
  type        = number
  default     = 2
}

variable "log_retention_days" {
  description = "How long logs are kept"
  type        = number
  default     = 30
}
