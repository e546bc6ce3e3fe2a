output "function_name" {
  description = "The function"
  value       = aws_lambda_function.worker.function_name
}

output "event_source_mapping_uuid" {
  description = "The mapping of the table's stream"
  value       = aws_lambda_event_source_mapping.stream.uuid
}

output "given_up_queue_name" {
  description = "The queue of batches that Lambda gave up"
  value       = aws_sqs_queue.given_up.name
}

output "worker_role_arn" {
  description = "The function's role"
  value       = aws_iam_role.worker.arn
}
