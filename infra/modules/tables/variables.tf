variable "name" {
  description = "What the tables' names begin with"
  type        = string
  default     = "aftercommit"
}

variable "orders_table" {
  description = "The name of a sample table of orders with a stream; null makes none, as you have one"
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether DynamoDB refuses to delete the tables"
  type        = bool
  default     = true
}
