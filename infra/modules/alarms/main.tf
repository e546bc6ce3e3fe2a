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
    # A level, like the next four: counted in the tables, whichever process wrote the rows and whether or not
    # it is alive. While no process counts them, the alarm stays as it is.
    dead-letters = {
      says      = "Records could not be handled and wait for a person."
      metric    = "aftercommit_parked_keys_failed"
      statistic = "Maximum"
      silence   = "ignore"
    }
    rescued = {
      says      = "Records were about to leave the stream unhandled and became dead letters."
      metric    = "aftercommit_parked_keys_rescued"
      statistic = "Maximum"
      silence   = "ignore"
    }
    ambiguous = {
      says      = "It is unknown whether emails were accepted, and their orders wait for a person."
      metric    = "aftercommit_orders_ambiguous"
      statistic = "Maximum"
      silence   = "ignore"
    }
    resending = {
      says      = "Orders in doubt have waited for more than an hour to be sent once more."
      metric    = "aftercommit_orders_resending"
      statistic = "Maximum"
      minutes   = 60
      silence   = "ignore"
    }
    released = {
      says      = "Orders that an operator released have not been sent for 15 minutes."
      metric    = "aftercommit_orders_released"
      statistic = "Maximum"
      minutes   = 15
      silence   = "ignore"
    }
    mail-server = {
      says      = "The handler's dependency has been down for more than ${var.lag_seconds} s."
      metric    = "aftercommit_dependency_down_seconds"
      statistic = "Maximum"
      threshold = var.lag_seconds
    }
  }

  on_ecs = {
    gaps = {
      says      = "Records left the stream unread."
      metric    = "aftercommit_gaps_open"
      statistic = "Maximum"
      silence   = "ignore"
    }
    # Without a worker there is no data, and that is the alarm.
    no-heartbeat = {
      says       = "No worker is alive."
      metric     = "aftercommit_heartbeats_total"
      comparison = "LessThanThreshold"
      threshold  = 1
      minutes    = 3
      silence    = "breaching"
    }
  }

  on_lambda = {
    # The row in the lease table is what lasts; this says that one was written.
    gaps = {
      says   = "The event source fell so far behind that records may have left the stream unread."
      metric = "aftercommit_gaps_total"
    }
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
    # Lambda polls an idle stream, too: no polls mean a mapping that is disabled, broken or gone.
    no-polls = {
      says       = "Lambda does not poll the stream."
      namespace  = "AWS/Lambda"
      metric     = "PolledEventCount"
      dimensions = { EventSourceMappingUUID = try(var.lambda.event_source_mapping_uuid, null) }
      statistic  = "SampleCount"
      comparison = "LessThanThreshold"
      threshold  = 1
      minutes    = 5
      silence    = "breaching"
    }
    errors = {
      says       = "Invocations fail: out of time or memory, a wrong setting, or an unreadable record."
      namespace  = "AWS/Lambda"
      metric     = "Errors"
      dimensions = { FunctionName = try(var.lambda.function_name, null) }
      minutes    = 3
    }
    throttles = {
      says       = "Lambda has not been allowed to invoke the function for 5 minutes."
      namespace  = "AWS/Lambda"
      metric     = "Throttles"
      dimensions = { FunctionName = try(var.lambda.function_name, null) }
      minutes    = 5
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
