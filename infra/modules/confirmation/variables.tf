variable "orders" {
  description = "The table whose orders are confirmed, and its stream, which carries new images"
  type        = object({ name = string, arn = string, stream_arn = string })
}

variable "tables" {
  description = "The worker's own tables: the output `tables` of the module of that name"
  type = object({
    leases       = object({ name = string, arn = string })
    ledger       = object({ name = string, arn = string })
    dead_letters = object({ name = string, arn = string })
    suppression  = object({ name = string, arn = string })
  })
}

variable "group" {
  description = "The application's name on the table's stream: groups on one table share nothing"
  type        = string
  default     = "confirmation"
}

variable "effect" {
  description = "The kind of mail: a second kind for the same orders needs a group and an effect of its own"
  type        = string
  default     = "confirmation"
}

variable "mail_from" {
  description = "Sender of the emails; bounces go there too"
  type        = string
}

variable "smtp_url" {
  description = "The mail server, such as `smtps://user@mail.example.com`, without a password; null with Amazon SES"
  type        = string
  default     = null

  validation {
    condition     = (var.smtp_url == null) != (var.ses_arns == null)
    error_message = "Mails go by smtp_url or by the API of Amazon SES (ses_arns): give one of them."
  }
}

variable "smtp_password_secret_arn" {
  description = "The secret in Secrets Manager that holds the mail server's password"
  type        = string
  default     = null
}

variable "ses_arns" {
  description = "With the API of Amazon SES: the ARNs of the identity that `mail_from` belongs to, and of the configuration set if there is one"
  type        = list(string)
  default     = null
}

variable "filter" {
  description = "Which records are handled: an event filter pattern. Lambda filters by it before it calls the function"
  type        = string
  default     = "{\"eventName\":[\"INSERT\"]}"
}

variable "refetch" {
  description = "Whether each order is read back from its table before its mail"
  type        = bool
  default     = false
}

variable "dead_letter_copy_arn" {
  description = "A queue (SQS) or a topic (SNS) that gets a copy of each dead letter"
  type        = string
  default     = null
}

variable "settings" {
  description = "Further settings of `aftercommit run`, such as `AFTERCOMMIT_ON_AMBIGUOUS = \"park\"`"
  type        = map(string)
  default     = {}
}
