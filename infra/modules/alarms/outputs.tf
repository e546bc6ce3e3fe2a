output "dashboard_name" {
  description = "The dashboard in CloudWatch"
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}
