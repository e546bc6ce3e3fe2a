output "tables" {
  description = "Name and ARN of `leases`, `ledger`, `dead_letters` and `suppression`"
  value       = { for key, table in aws_dynamodb_table.own : key => { name = table.name, arn = table.arn } }
}

output "orders" {
  description = "Name, ARN and stream ARN of the sample table, where it was asked for"
  value = one([for table in aws_dynamodb_table.orders : {
    name       = table.name
    arn        = table.arn
    stream_arn = table.stream_arn
  }])
}
