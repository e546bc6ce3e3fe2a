variable "region" {
  description = "Where"
  type        = string
  default     = "eu-central-1"
}

variable "package" {
  description = "The zip file with the binary, named `bootstrap`"
  type        = string
}

variable "mail_from" {
  description = "Sender of the emails, such as `Shop <orders@example.com>`"
  type        = string
}

variable "smtp_url" {
  description = "The mail server, without a password, such as `smtps://user@mail.example.com`"
  type        = string
}

variable "deletion_protection" {
  description = "Whether DynamoDB refuses to delete the tables"
  type        = bool
  default     = true
}
