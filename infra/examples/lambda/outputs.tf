output "alarms_topic_arn" {
  description = "Subscribe to it to hear of alarms"
  value       = aws_sns_topic.alarms.arn
}
