variable "name" {
  description = "What the resources' names begin with"
  type        = string
  default     = "aftercommit"
}

variable "cidr" {
  description = "The addresses of the network; each of the three subnets gets a sixteenth"
  type        = string
  default     = "10.20.0.0/16"
}

variable "services" {
  description = "The AWS services that are reached from within, besides DynamoDB, its streams and S3. Without `email-smtp`, which is the SMTP server of Amazon SES, mails need another way out"
  type        = set(string)
  default     = ["ecr.api", "ecr.dkr", "email-smtp", "logs", "secretsmanager"]
}
