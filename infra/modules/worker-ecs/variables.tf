variable "name" {
  description = "The service's name, and what its resources' names begin with"
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

variable "image" {
  description = "The image, best by its digest"
  type        = string
}

variable "ecr_repository_arn" {
  description = "The repository in ECR that the image is in; null for a public image elsewhere"
  type        = string
  default     = null
}

variable "architecture" {
  description = "`X86_64` or `ARM64`: what the image was built for"
  type        = string
  default     = "X86_64"
}

variable "vpc_id" {
  description = "The network"
  type        = string
}

variable "subnet_ids" {
  description = "Its subnets, in as many zones; ECS spreads the tasks over them"
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 3
    error_message = "Give subnets in at least three zones, so that one may fail."
  }
}

variable "streams_endpoint_url" {
  description = "Where DynamoDB Streams is; inside a network with endpoints it has a name of its own"
  type        = string
  default     = null
}

variable "smtp_ports" {
  description = "The mail server's ports"
  type        = list(number)
  default     = [465, 587]
}

variable "cpu" {
  description = "Of a task, in 1/1024 of a virtual CPU"
  type        = number
  default     = 256
}

variable "memory" {
  description = "Of a task, in MiB"
  type        = number
  default     = 512
}

variable "min_tasks" {
  description = "Tasks at least; three are one for each zone"
  type        = number
  default     = 3
}

variable "max_tasks" {
  description = "Tasks at most; more than the stream has shards idle"
  type        = number
  default     = 6
}

variable "target_lag_seconds" {
  description = "Behind by more than this, tasks are added"
  type        = number
  default     = 60
}

variable "log_retention_days" {
  description = "How long logs are kept"
  type        = number
  default     = 30
}
