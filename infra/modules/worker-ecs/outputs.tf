output "cluster_name" {
  description = "The cluster"
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "The service"
  value       = aws_ecs_service.worker.name
}

output "worker_role_arn" {
  description = "The role of the worker itself"
  value       = aws_iam_role.worker.arn
}

output "security_group_id" {
  description = "The workers' security group, for the mail server to let in"
  value       = aws_security_group.worker.id
}

output "log_group_name" {
  description = "Where the logs are, and the metrics on their way to CloudWatch"
  value       = aws_cloudwatch_log_group.worker.name
}
