locals {
  table = { table = var.table }
  # What is told of every alarm: where its paragraph is.
  runbook   = "What to do: ${var.runbook}#"
  on_ecs    = var.lambda == null ? 1 : 0
  on_lambda = var.lambda == null ? 0 : 1
}

resource "aws_cloudwatch_metric_alarm" "lag" {
  alarm_name          = "${var.name}-lag"
  alarm_description   = "Orders wait for more than ${var.lag_seconds} s. ${local.runbook}lag"
  namespace           = "aftercommit"
  metric_name         = "aftercommit_lag_seconds"
  dimensions          = local.table
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.lag_seconds
  period              = 60
  evaluation_periods  = 5
  # That nobody is there is told by the heartbeat.
  treat_missing_data = "notBreaching"
  alarm_actions      = var.actions
  ok_actions         = var.actions
}

resource "aws_cloudwatch_metric_alarm" "trim" {
  alarm_name          = "${var.name}-trim"
  alarm_description   = "Records leave the stream unread in less than ${var.until_trim_seconds} s. ${local.runbook}trim"
  namespace           = "aftercommit"
  metric_name         = "aftercommit_until_trim_seconds"
  dimensions          = local.table
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.until_trim_seconds
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.actions
  ok_actions          = var.actions
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${var.name}-dead-letters"
  alarm_description   = "Records could not be handled and wait for somebody. ${local.runbook}dead-letters"
  namespace           = "aftercommit"
  metric_name         = "aftercommit_dead_letters_total"
  dimensions          = local.table
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.actions
  ok_actions          = var.actions
}

resource "aws_cloudwatch_metric_alarm" "ambiguous" {
  alarm_name          = "${var.name}-ambiguous"
  alarm_description   = "Nobody can tell whether a mail was accepted. ${local.runbook}ambiguous"
  namespace           = "aftercommit"
  metric_name         = "aftercommit_mails_ambiguous_total"
  dimensions          = local.table
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.actions
  ok_actions          = var.actions
}

resource "aws_cloudwatch_metric_alarm" "gaps" {
  count = local.on_ecs

  alarm_name          = "${var.name}-gaps"
  alarm_description   = "Records left the stream unread. ${local.runbook}gaps"
  namespace           = "aftercommit"
  metric_name         = "aftercommit_gaps_total"
  dimensions          = local.table
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.actions
  ok_actions          = var.actions
}

resource "aws_cloudwatch_metric_alarm" "no_heartbeat" {
  count = local.on_ecs

  alarm_name          = "${var.name}-no-heartbeat"
  alarm_description   = "No worker gives a sign of life. ${local.runbook}no-heartbeat"
  namespace           = "aftercommit"
  metric_name         = "aftercommit_heartbeats_total"
  dimensions          = local.table
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 3
  treat_missing_data  = "breaching"
  alarm_actions       = var.actions
  ok_actions          = var.actions
}

# A record that Lambda has not handed to the function yet is seen by Lambda only.
resource "aws_cloudwatch_metric_alarm" "iterator_age" {
  count = local.on_lambda

  alarm_name          = "${var.name}-iterator-age"
  alarm_description   = "Lambda has been behind by more than ${var.lag_seconds} s. ${local.runbook}iterator-age"
  namespace           = "AWS/Lambda"
  metric_name         = "IteratorAge"
  dimensions          = { FunctionName = var.lambda.function_name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  # Milliseconds.
  threshold          = var.lag_seconds * 1000
  period             = 60
  evaluation_periods = 5
  treat_missing_data = "notBreaching"
  alarm_actions      = var.actions
  ok_actions         = var.actions
}

resource "aws_cloudwatch_metric_alarm" "given_up" {
  count = local.on_lambda

  alarm_name          = "${var.name}-given-up"
  alarm_description   = "Lambda gave up records. ${local.runbook}given-up"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = var.lambda.given_up_queue_name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.actions
  ok_actions          = var.actions
}
