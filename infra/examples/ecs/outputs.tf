output "repository_url" {
  description = "Where the image is pushed to"
  value       = aws_ecr_repository.worker.repository_url
}

output "alarms_topic_arn" {
  description = "Subscribe to it to hear of alarms"
  value       = aws_sns_topic.alarms.arn
}
