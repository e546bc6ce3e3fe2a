mock_provider "aws" {}

variables {
  table = "orders"
}

run "silence_is_an_alarm_on_ecs" {
  command = plan

  assert {
    condition     = aws_cloudwatch_metric_alarm.no_heartbeat[0].treat_missing_data == "breaching" && length(aws_cloudwatch_metric_alarm.gaps) == 1
    error_message = "Where no worker is, nobody tells of it."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.iterator_age) + length(aws_cloudwatch_metric_alarm.given_up) == 0
    error_message = "No alarms of Lambda."
  }
}

run "lambda_has_an_age_and_a_queue_in_place_of_heartbeats" {
  command = plan

  variables {
    lambda = { function_name = "aftercommit", given_up_queue_name = "aftercommit-given-up" }
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.no_heartbeat) + length(aws_cloudwatch_metric_alarm.gaps) == 0
    error_message = "An idle function is well."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.iterator_age[0].threshold == 300000 && aws_cloudwatch_metric_alarm.given_up[0].dimensions.QueueName == "aftercommit-given-up"
    error_message = "Lambda counts milliseconds."
  }
}

run "every_metric_is_of_this_table" {
  command = plan

  assert {
    condition     = aws_cloudwatch_metric_alarm.lag.dimensions == tomap({ table = "orders" })
    error_message = "The one dimension is the table."
  }

  assert {
    condition = alltrue(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets :
      [for metric in widget.properties.metrics : slice(metric, 2, 4) == ["table", "orders"]]
    ]))
    error_message = "So it is on the dashboard."
  }
}
