mock_provider "aws" {}

variables {
  table = "orders"
}

run "silence_is_an_alarm_on_ecs" {
  command = plan

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["ambiguous", "dead-letters", "gaps", "lag", "mail-server", "no-heartbeat", "released", "rescued", "resending", "trim"])
    error_message = "Ten alarms, and none of Lambda's."
  }

  assert {
    condition     = [for name, alarm in aws_cloudwatch_metric_alarm.this : name if alarm.treat_missing_data == "breaching"] == ["no-heartbeat"]
    error_message = "Where no worker is, nobody tells of it; elsewhere silence is no alarm."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["trim"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.this["trim"].threshold == 21600
    error_message = "Six hours before the loss: two before the worker writes the records down as dead letters."
  }

  assert {
    condition     = alltrue([for name in ["ambiguous", "dead-letters", "gaps", "released", "rescued", "resending"] : aws_cloudwatch_metric_alarm.this[name].treat_missing_data == "ignore" && aws_cloudwatch_metric_alarm.this[name].statistic == "Maximum"])
    error_message = "A level that nobody measures stays as it is."
  }
}

run "lambda_has_an_age_and_a_queue_in_place_of_heartbeats" {
  command = plan

  variables {
    lambda = { function_name = "aftercommit", event_source_mapping_uuid = "11111111-2222-3333-4444-555555555555", given_up_queue_name = "aftercommit-given-up" }
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["ambiguous", "dead-letters", "earlier-stream", "errors", "gaps", "given-up", "iterator-age", "lag", "mail-server", "no-polls", "released", "rescued", "resending", "throttles", "trim"])
    error_message = "What Lambda alone can tell, and the levels."
  }

  assert {
    condition     = [for name, alarm in aws_cloudwatch_metric_alarm.this : name if alarm.treat_missing_data == "breaching"] == ["no-polls"] && aws_cloudwatch_metric_alarm.this["no-polls"].dimensions.EventSourceMappingUUID == "11111111-2222-3333-4444-555555555555"
    error_message = "An idle function is well; a mapping that does not poll is not."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["iterator-age"].threshold == 300000 && aws_cloudwatch_metric_alarm.this["given-up"].dimensions.QueueName == "aftercommit-given-up"
    error_message = "Lambda counts milliseconds."
  }
}

run "every_metric_is_of_this_group_effect_and_table" {
  command = plan

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : alarm.dimensions == tomap({ group = "confirmation", effect = "confirmation", table = "orders" }) && alarm.namespace == "aftercommit"])
    error_message = "The dimensions are the group, the effect and the table."
  }

  assert {
    condition = alltrue(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets :
      [for metric in widget.properties.metrics : slice(metric, 2, 8) == ["group", "confirmation", "effect", "confirmation", "table", "orders"]]
    ]))
    error_message = "So it is on the dashboard."
  }
}
