# What each alarm means and what to do is in the runbook, under the alarm's name here.
locals {
  everywhere = {
    lag = {
      says       = "Orders wait for more than ${var.lag_seconds} s."
      metric     = "aftercommit_lag_seconds"
      statistic  = "Maximum"
      comparison = "GreaterThanThreshold"
      threshold  = var.lag_seconds
      minutes    = 5
    }
    trim = {
      says       = "Records leave the stream unread in less than ${var.until_trim_seconds} s."
      metric     = "aftercommit_until_trim_seconds"
      statistic  = "Minimum"
      comparison = "LessThanThreshold"
      threshold  = var.until_trim_seconds
    }
    dead-letters = {
      says   = "Records could not be handled and wait for somebody."
      metric = "aftercommit_dead_letters_total"
    }
    rescued = {
      says   = "Records were about to leave the stream unsettled and became dead letters."
      metric = "aftercommit_records_rescued_total"
    }
    ambiguous = {
      says   = "Nobody can tell whether a mail was accepted."
      metric = "aftercommit_mails_ambiguous_total"
    }
  }

  on_ecs = {
    gaps = {
      says   = "Records left the stream unread."
      metric = "aftercommit_gaps_total"
    }
    # Where nobody is, nobody tells of it.
    no-heartbeat = {
      says       = "No worker gives a sign of life."
      metric     = "aftercommit_heartbeats_total"
      comparison = "LessThanThreshold"
      threshold  = 1
      minutes    = 3
      silence    = "breaching"
    }
  }

  on_lambda = {
    # What Lambda has not handed to the function yet, Lambda alone knows. In milliseconds.
    iterator-age = {
      says       = "Lambda has been behind by more than ${var.lag_seconds} s."
      namespace  = "AWS/Lambda"
      metric     = "IteratorAge"
      dimensions = { FunctionName = try(var.lambda.function_name, null) }
      statistic  = "Maximum"
      threshold  = 1000 * var.lag_seconds
      minutes    = 5
    }
    earlier-stream = {
      says   = "The table has a later stream than the one that Lambda reads."
      metric = "aftercommit_events_of_earlier_streams_total"
    }
    given-up = {
      says       = "Lambda gave up records."
      namespace  = "AWS/SQS"
      metric     = "ApproximateNumberOfMessagesVisible"
      dimensions = { QueueName = try(var.lambda.given_up_queue_name, null) }
      statistic  = "Maximum"
    }
  }

  # Whose metrics the worker's own are.
  dimensions = { group = var.group, effect = var.effect, table = var.table }

  alarms = merge(
    local.everywhere,
    { for name, alarm in local.on_ecs : name => alarm if var.lambda == null },
    { for name, alarm in local.on_lambda : name => alarm if var.lambda != null },
  )
}

# Unless said otherwise: one more than none in a minute, of the worker's own metrics.
resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.says} What to do: ${var.runbook}#${each.key}"
  namespace           = try(each.value.namespace, "aftercommit")
  metric_name         = each.value.metric
  dimensions          = try(each.value.dimensions, local.dimensions)
  statistic           = try(each.value.statistic, "Sum")
  comparison_operator = try(each.value.comparison, "GreaterThanThreshold")
  threshold           = try(each.value.threshold, 0)
  period              = 60
  evaluation_periods  = try(each.value.minutes, 1)
  treat_missing_data  = try(each.value.silence, "notBreaching")
  alarm_actions       = var.actions
  ok_actions          = var.actions
}
